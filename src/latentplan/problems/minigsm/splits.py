"""Which split a problem belongs to: a function of the problem alone, so that no seed can move it."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_TEST_PERCENT, _VALIDATION_PERCENT = 10, 5

# Chosen so that even the 88 one-step problems of the default clock world are shared out 73, 5 and 10.
_SALT = b"500"


def fingerprint(text: str) -> int:
    """A 64-bit number that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=_SALT).digest(), "big")


def split_of(canonical: str) -> Split:
    """The split (train 85%, validation 5%, test 10%) of the problem with this canonical form."""
    percent = fingerprint(canonical) % 100
    if percent < _TEST_PERCENT:
        return "test"
    return "validation" if percent < _TEST_PERCENT + _VALIDATION_PERCENT else "train"
