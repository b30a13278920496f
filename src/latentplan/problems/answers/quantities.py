r"""Finding the answer in a text, and deciding whether it is right.

extract_answer("<<16-3-4=9>> ### 9")      "9"         strict: the answer must stand behind a marker
last_answer("so she has 9 eggs left.")    "9"         lenient: else the last number
parse_number("-$1,080.50")                Fraction(-2161, 2)
answers_match("18 dollars", "18.0")       True        as numbers
answers_match(r"\sqrt{8}", "2\sqrt{2}")   True        as mathematics
answers_match("Yes.", "yes")              True        as text
"""

from __future__ import annotations

import logging
import re
import unicodedata
from fractions import Fraction
from functools import cache
from typing import Any

_SUPERSCRIPTS = str.maketrans({raised: f"^{digit}" for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")})
_DASHES = str.maketrans(dict.fromkeys("−‐‑‒–—", "-"))
_NARROW_SPACES = "\u00a0\u2009\u202f"

_CURRENCY = r"(?:(?:US|CA|AU|NZ|HK|S|R|A|C)?\$|[€£¥₹₽₩₺₫₦]|(?:USD|EUR|GBP|Rs\.?)(?=[\s\d]))"
_DECIMAL = r"(?:(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?![\d.])"
_QUANTITY = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:{_CURRENCY}\s*(?P<inner_sign>[-+]?)\s*)?"
    rf"(?:(?P<whole>\d+)\s+(?P<part>\d+)\s*/\s*(?P<of>\d+)"
    rf"|(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})"
    rf"|(?P<plain>{_DECIMAL}))"
    r"(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
_UNIT_WORD = re.compile(
    rf"(?:[A-Za-z]{{2,}}(?:[-/'’][A-Za-z]+)*\.?|[mgshlLKCF]|°[CF]?|%|{_CURRENCY}|€)(?:\^?[23])?", re.ASCII
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NOT_UNITS = frozenset(
    ["and", "or", "to", "pi", "sqrt", "plus", "minus", "times", "over", "by", "half", "quarter", "third"]
)
_MAX_NUMBER_LENGTH, _MAX_UNIT_WORDS = 200, 4

_MARKER = re.compile(r"(?<!#)#{3,}+[ \t]*+([^\s#][^\n]*)")
_NUMBER_IN_TEXT = re.compile(
    rf"(?:(?<![\w.)\]])[-−–])?(?:{_CURRENCY}\s?[-−–]?)?"
    r"(?:\d+ \d+/\d+|(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}|/\d+)?)"
)
_YES_OR_NO = re.compile(r"\b(?:yes|no|true|false)\b", re.IGNORECASE)

_MATHEMATICS = re.compile(
    r"(?:\\(?:[dt]?frac|sqrt|pi|cdot|times|div|left|right|pm|infty|circ|[%$,;:! ])(?![A-Za-z])"
    r"|\\(?:text|mathrm)\{[^{}]*\}|(?:pi|sqrt)(?![A-Za-z])|(?<![A-Za-z])[A-Za-z](?![A-Za-z])"
    r"|(?<!\d)\d{1,20}(?!\d)|[-+*/=^_(){}\[\]<>.,%°π√\s])+",
    re.ASCII,
)
_POWER = re.compile(r"\^|\*\*")
_SMALL_POWER = re.compile(
    r"(?:(?<=\w)(?:\^|\*\*)\s*(?:\w{1,2}|\{-?\w{1,2}(?:/\d{1,2})?\}|\(-?\w{1,2}(?:/\d{1,2})?\))"
    r"|(?:\^|\*\*)\s*(?:[0-3]|\{[0-3]\}))(?![\w^*({])"
)
_MAX_MATHEMATICS_LENGTH, _MAX_POWERS, _MAX_BRACKETS = 100, 2, 8


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


def extract_answer(text: str) -> str | None:
    r"""The answer behind a marker, else None (strict).

    The first `### 9` or `#### 9` counts, up to the end of its line, as in GSM8K's own evaluation: a text that
    runs on into a second problem cannot replace its answer. Without such a marker, the last `\boxed{...}`.
    """
    marked = _MARKER.search(text)
    answer = marked.group(1) if marked else last_boxed(text)
    return (answer.strip() or None) if answer is not None else None


def last_answer(text: str) -> str | None:
    """The answer behind a marker, else the last number, else the last yes/no/true/false (lenient)."""
    marked = extract_answer(text)
    if marked is not None:
        return marked
    for pattern in (_NUMBER_IN_TEXT, _YES_OR_NO):
        found = pattern.findall(text)
        if found:
            return str(found[-1]).strip().rstrip(".")
    return None


def answers_match(predicted: str, reference: str) -> bool:
    """Whether `predicted` is the answer `reference`.

    Compared as numbers where both are numbers (see `numbers_match`), else as text (see `normalise_answer`),
    else, where both read as formulas, as mathematics through math-verify. Safe to call from any thread.

    Raises:
        ImportError: math-verify is needed and missing.
    """
    number, expected = parse_number(predicted), parse_number(reference)
    if number is not None and expected is not None:
        return numbers_match(number, expected)
    if normalise_answer(predicted) == normalise_answer(reference):
        return True
    return _is_formula(predicted) and _is_formula(reference) and _same_mathematics(predicted, reference)


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


def normalise_answer(text: str) -> str:
    """Lower case, single spaces, no quotes or punctuation at the ends; true/false become yes/no."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .,;:!?\"'`*“”‘’")
    return {"true": "yes", "false": "no"}.get(text, text)


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


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{...}` of a text, else None."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end]
    return None


def _is_formula(text: str) -> bool:
    """Whether `text` is short arithmetic or algebra that sympy evaluates in no time.

    Words would be read as products of letters ('no' equals 'on'), and no timeout can interrupt a tower of
    powers, so neither may reach math-verify.
    """
    text = text.strip().strip("$")
    if not text or len(text) > _MAX_MATHEMATICS_LENGTH or not _MATHEMATICS.fullmatch(text):
        return False
    powers, brackets = len(_POWER.findall(text)), sum(map(text.count, "([{"))
    return brackets <= _MAX_BRACKETS and powers <= _MAX_POWERS and powers == len(_SMALL_POWER.findall(text))


def _same_mathematics(predicted: str, reference: str) -> bool:
    # math-verify's timeouts are signals, which only the main thread may set; `_is_formula` bounds the work.
    parse, verify = _math_verify()
    gold, answer = (
        parse(f"${text.strip().strip('$')}$", parsing_timeout=None) for text in (reference, predicted)
    )
    return bool(verify(gold, answer, timeout_seconds=None))


@cache
def _math_verify() -> tuple[Any, Any]:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ImportError("comparing formulas needs math-verify: pip install math-verify") from error
    # It warns about the missing timeout and reports every text that it cannot parse, which is no error here.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return parse, verify
