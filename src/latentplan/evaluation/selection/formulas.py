"""How often one answer chosen from k samples is right: exact, over all k-subsets of n samples, no drawing.

majority_at_k([Answer(3, True), Answer(1, False)], 0)     of 4 samples: 3/4, 1/2 + 1/4, 1, 1   for k = 1 … 4
best_at_k([0.9, 0.5, 0.5], [True, False, True], 2)        2/3 + 1/3·1/2: the best, or one of the others
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import comb
from typing import NamedTuple


class Answer(NamedTuple):
    """One of the different answers among a problem's samples: how many gave it, and whether it is right."""

    votes: int
    right: bool


def majority_at_k(answers: Sequence[Answer], silent: int) -> list[float]:
    """The probability that the most frequent answer of k samples is right, for k = 1 … n.

    The k samples are drawn without replacement from the n that there are, so the estimate is unbiased for
    each k, as pass@k is. Of equally frequent answers one is taken at random. Wang et al. (2023),
    'Self-consistency improves chain of thought reasoning', arXiv:2203.11171.

    Args:
        answers: the different answers.
        silent: samples without any answer; they have no vote. Where nobody votes nothing is right.
    """
    counts = [answer.votes for answer in answers]
    total = sum(counts) + silent
    chances = [0.0] * total
    for place, answer in enumerate(answers):
        if answer.right:
            others = tuple(sorted(counts[:place] + counts[place + 1 :]))
            wins = _wins(answer.votes, others, silent)
            chances = [a + b for a, b in zip(chances, wins, strict=True)]
    return chances


def best_at_k(scores: Sequence[float | None], right: Sequence[bool], k: int) -> float:
    """The probability that of k samples the one with the highest score is right; ties at random.

    None scores lowest. With a score that knows what is right it is pass@k, with the same score for all it is
    the mean accuracy.

    Raises:
        ValueError: `k` is not in 1 … n, or there is not one score for each sample.
    """
    return best_then_vote_at_k(scores, right, list(range(len(right))), k, votes=False)


def best_then_vote_at_k(
    scores: Sequence[float | None],
    right: Sequence[bool],
    answers: Sequence[Hashable],
    k: int,
    votes: bool = True,
) -> float:
    """As `best_at_k`, but of the samples that share the highest score the most frequent answer is taken.

    Args:
        scores, right: of each sample.
        answers: of each sample, equal where they agree; None has no vote.
        k: samples to choose from.
        votes: False takes any of them.
    """
    total = len(scores)
    if not (total == len(right) == len(answers)) or not 1 <= k <= total:
        raise ValueError(f"best of {k} needs 1 to n samples with a score each, got {total} and {len(right)}")
    levels: dict[float, list[int]] = defaultdict(list)
    for place, score in enumerate(scores):
        levels[float("-inf") if score is None else score].append(place)
    chance, below = 0.0, 0
    for level in sorted(levels):
        places = levels[level]
        ways = [comb(len(places), taken) * comb(below, k - taken) for taken in range(min(k, len(places)) + 1)]
        if votes:
            found = majority_at_k(*tally([answers[at] for at in places], [right[at] for at in places]))
            chance += sum(ways[taken] / comb(total, k) * found[taken - 1] for taken in range(1, len(ways)))
        else:
            chance += sum(ways[1:]) / comb(total, k) * sum(right[at] for at in places) / len(places)
        below += len(places)
    return chance


def tally(answers: Sequence[Hashable], right: Sequence[bool]) -> tuple[list[Answer], int]:
    """The different answers of some samples, and how many gave none (None)."""
    counts = Counter(answer for answer in answers if answer is not None)
    known = {answer for answer, hit in zip(answers, right, strict=True) if hit}
    return [Answer(count, answer in known) for answer, count in counts.items()], list(answers).count(None)


@lru_cache(maxsize=100_000)
def _wins(count: int, others: tuple[int, ...], silent: int) -> list[float]:
    """The probability that an answer given `count` times wins against others, for k = 1 … n."""
    total = count + sum(others) + silent
    chances = [0.0] * total
    for votes in range(1, count + 1):
        for ties, ways in enumerate(_ways(votes, others, silent)):
            for rest, number in enumerate(ways):
                if number:
                    k = votes + rest
                    chances[k - 1] += comb(count, votes) * number / ((ties + 1) * comb(total, k))
    return chances


def _ways(most: int, others: tuple[int, ...], silent: int) -> list[list[int]]:
    """`[ties][size]`: subsets of so many other samples, no answer above `most` votes and so many at it."""
    ways = [[comb(silent, size) for size in range(silent + 1)]]
    for count in others:
        width = len(ways[0]) + min(count, most)
        ties = len(ways) + (count >= most)
        longer = [[0] * width for _ in range(ties)]
        for tied, row in enumerate(ways):
            for size, number in enumerate(row):
                for taken in range(min(count, most) + 1):
                    longer[tied + (taken == most)][size + taken] += number * comb(count, taken)
        ways = longer
    return ways
