"""Texts that are one number, read exactly.

parse_number("-$1,080.50")                Fraction(-2161, 2)
parse_number("9 eggs per day")            Fraction(9, 1)
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SUPERSCRIPTS = str.maketrans({raised: f"^{digit}" for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")})
_DASHES = str.maketrans(dict.fromkeys("−‐‑‒–—", "-"))
_NARROW_SPACES = "\u00a0\u2009\u202f"

CURRENCY = r"(?:(?:US|CA|AU|NZ|HK|S|R|A|C)?\$|[€£¥₹₽₩₺₫₦]|(?:USD|EUR|GBP|Rs\.?)(?=[\s\d]))"
_DECIMAL = r"(?:(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?![\d.])"
_QUANTITY = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:{CURRENCY}\s*(?P<inner_sign>[-+]?)\s*)?"
    rf"(?:(?P<whole>\d+)\s+(?P<part>\d+)\s*/\s*(?P<of>\d+)"
    rf"|(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})"
    rf"|(?P<plain>{_DECIMAL}))"
    r"(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
_LETTER = r"[^\W\d_]"
_UNIT_WORD = re.compile(
    rf"(?:{_LETTER}{{2,}}(?:[-/'’]{_LETTER}+)*\.?|[mgshlLKCF]|(?![A-Za-z]){_LETTER}|°[CF]?|%|{CURRENCY}|€)"
    r"(?:\^?[23])?"
)
_SCALES = {
    word: scale
    for scale, words in {
        10**2: "hundred hundreds cien hundert cem сто 百",
        10**3: "thousand thousands mil mille tausend тысяч тысяча тысячи 千 천",
        10**4: "万 萬 만",
        10**5: "lakh lakhs",
        10**6: "million millions mn millón millon millones milhão milhões millionen milione milioni миллион "
        "миллиона миллионов 百万 백만",
        10**7: "crore crores 千万",
        10**8: "億 亿 억",
        10**9: "billion billions bn milliard milliards milliarde milliarden miliardi миллиард миллиардов",
        10**12: "trillion trillions 兆 조",
    }.items()
    for word in words.split()
}
"""Words that multiply the number before them; in other languages, too, since those are not units either."""
_LATEX = [
    (re.compile(pattern), text)
    for pattern, text in (
        (r"\\(?:text|textbf|textit|mathrm|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
        (r"\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}", r"\1/\2"),
        (r"\\[dt]?frac\s*(\d)\s*(\d)(?![\d{])", r"\1/\2"),
        (r"\{,\}", ","),
        (r"\^\s*\{?\\circ\}?", "°"),
        (r"\\(?:left|right)(?=[()\[\]])", ""),
        (r"\\(?:[,;:! ]|quad|qquad)|~", " "),
        (r"\\([$%])", r"\1"),
    )
]
"""What LaTeX writes otherwise in one number; nothing that would have to be computed."""
_GROUPS = re.compile(r"(?<![\d.,/])(\d{1,3}(?: \d{3})+)(?![\d/])")
_UNSPACED = sorted((word for word in _SCALES if word[0] >= "\u3000"), key=len, reverse=True)
"""Those that stand before a unit without a space, `5万円`."""
_NOT_UNITS = frozenset(
    ["and", "or", "to", "pi", "sqrt", "plus", "minus", "times", "over", "by", "half", "quarter", "third"]
)
_MAX_NUMBER_LENGTH, _MAX_UNIT_WORDS = 200, 4


def parse_number(text: str) -> Fraction | None:
    r"""Returns the exact value of a text that is one number, else None (never raises).

    Understood: thousands commas, a currency before or after, signs (also the Unicode minus), decimals, `1e3`,
    fractions `3/4`, `1 1/2`, `½`, `\frac{3}{4}`, spaces between groups of three digits, words that multiply
    (`2.5 million`) and a unit of up to four words in any language, which is ignored. A percent sign is such a
    unit: `25%` is 25, because references write percentages either way. Arithmetic is no number.
    """
    text = _plain(text)
    found = _QUANTITY.fullmatch(text) if len(text) <= _MAX_NUMBER_LENGTH else None
    if found is None or (found["sign"] and found["inner_sign"]):
        return None
    size, scale = _magnitude(found), _scale_of_unit(found["unit"])
    if size is None or scale is None:
        return None
    return -size * scale if "-" in (found["sign"], found["inner_sign"]) else size * scale


def numbers_match(predicted: Fraction, reference: Fraction) -> bool:
    """Whether a predicted number is the reference: exactly if that is whole, else up to its rounding.

    References such as GSM-Hard's are floats rounded to 10 decimals, so a broken number may differ by one
    millionth of its size, at least 1e-10 and at most half a cent. Whole references get no such room: at the
    size of 9867630, a millionth would accept a neighbour.
    """
    if reference.denominator == 1:
        return predicted == reference
    room = min(max(abs(reference) / 10**6, Fraction(1, 10**10)), Fraction(1, 200))
    return abs(predicted - reference) <= room


def _plain(text: str) -> str:
    """`text` with the many ways to write a sign, a space or a fraction reduced to one, without ornaments."""
    text = re.sub(rf"(?<=\d)[{_NARROW_SPACES}](?=\d{{3}}(?!\d))", ",", text.translate(_SUPERSCRIPTS))
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/").translate(_DASHES)
    if any(mark in text for mark in ("\\", "~", "{,}")):
        text = text.strip(" \t\n$")
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    text = _GROUPS.sub(lambda found: found[1].replace(" ", ","), text)
    return text.strip(" \t\n\"'`*").rstrip(".,;:! \t\n")


def _magnitude(found: re.Match[str]) -> Fraction | None:
    if found["whole"] is not None:
        fraction = _divide(found["part"], found["of"])
        return None if fraction is None else int(found["whole"]) + fraction
    if found["plain"] is not None:
        return _exact(found["plain"])
    return _divide(found["top"], found["bottom"])


def _divide(top: str, bottom: str) -> Fraction | None:
    divisor = _exact(bottom)
    return _exact(top) / divisor if divisor else None


def _exact(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _scale_of_unit(unit: str) -> int | None:
    """What a unit multiplies by (`million`), 1 for other units or none at all, None for what is no unit."""
    words = unit.split()
    if len(words) > _MAX_UNIT_WORDS or not all(map(_UNIT_WORD.fullmatch, words)):
        return None
    lowered = [word.lower() for word in words]
    if _NOT_UNITS.intersection(lowered):
        return None
    if not lowered:
        return 1
    unspaced = (word for word in _UNSPACED if lowered[0].startswith(word))
    return _SCALES.get(next(unspaced, lowered[0]), 1)
