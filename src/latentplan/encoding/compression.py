"""Chains of tokens in groups, of which each is to become one latent (CoLaR, arXiv:2505.16552)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F

from latentplan.encoding.processor import Batch, pad_right


@dataclass(frozen=True)
class Compressed:
    """A chain in groups of `factor` tokens, and a token drawn of each group."""

    factor: int
    groups: list[list[int]]
    drawn: list[int]


def compress(tokens: Sequence[int], max_factor: int, max_groups: int, key: int) -> Compressed:
    """Groups of r tokens, r uniform from 1 to `max_factor`; what is too much for `max_groups` is in the last.

    r and the tokens drawn are functions of `key` alone.
    """
    draw = random.Random(key)
    factor = 1 + math.floor(draw.random() * max_factor)
    groups = [list(tokens[start : start + factor]) for start in range(0, len(tokens), factor)]
    if len(groups) > max_groups:
        groups = [*groups[: max_groups - 1], list(chain.from_iterable(groups[max_groups - 1 :]))]
    return Compressed(factor, groups, [group[math.floor(draw.random() * len(group))] for group in groups])


def collate_groups(rows: Sequence[Compressed], slots: int, end: int) -> Batch:
    """The groups of a batch; the slot after a row's last, where there is one, stands for the token `end`.

    Returns:
        group_ids, group_places: `[tokens]`, and the slot of each in the flattened `[batch · slots]`.
        drawn_tokens, drawn_places: `[groups]`, the token drawn of each group, and its slot.
        decided: `[batch, slots]`, 1 for slots that stand for something.
    """
    grouped = [
        (row * slots + slot, token)
        for row, each in enumerate(rows)
        for slot, group in enumerate([*each.groups, [end]][:slots])
        for token in group
    ]
    drawn = [
        (row * slots + slot, token)
        for row, each in enumerate(rows)
        for slot, token in enumerate([*each.drawn, end][:slots])
    ]
    group_places, group_ids = torch.tensor(grouped).unbind(dim=1)
    drawn_places, drawn_tokens = torch.tensor(drawn).unbind(dim=1)
    decided = pad_right([[1] * min(slots, len(each.groups) + 1) for each in rows], 0)
    return {
        "group_ids": group_ids,
        "group_places": group_places,
        "drawn_tokens": drawn_tokens,
        "drawn_places": drawn_places,
        "decided": F.pad(decided, (0, slots - decided.shape[1])),
    }
