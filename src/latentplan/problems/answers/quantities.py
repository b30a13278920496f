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
_UNIT_WORD = re.compile(
    rf"(?:[A-Za-z]{{2,}}(?:[-/'’][A-Za-z]+)*\.?|[mgshlLKCF]|°[CF]?|%|{CURRENCY}|€)(?:\^?[23])?", re.ASCII
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NOT_UNITS = frozenset(
    ["and", "or", "to", "pi", "sqrt", "plus", "minus", "times", "over", "by", "half", "quarter", "third"]
)
_MAX_NUMBER_LENGTH, _MAX_UNIT_WORDS = 200, 4


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, else None (never raises).

    Understood: thousands commas, a currency before or after, signs (also the Unicode minus), decimals, `1e3`,
    fractions `3/4`, `1 1/2`, `½`, scale words (`2.5 million`) and a unit of up to four words, which is
    ignored. A percent sign is such a unit: `25%` is 25, because references write percentages either way.
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
    text = re.sub(r"\\([$%])", r"\1", text)
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
    return _SCALES.get(lowered[0], 1) if lowered else 1
