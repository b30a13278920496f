"""Tests on the same problems, by hand."""

import math
import random

import pytest

from latentplan.evaluation.statistics import holm, mcnemar, paired_bootstrap, sign_flip_test


def test_sign_flips_by_hand():
    # Of the 8 ways to flip three ones, two reach a sum of ±3.
    assert sign_flip_test([1, 1, 1, 0, 0]) == pytest.approx(2 / 8)
    # ±2 ±1: the sums −3, −1, 1, 3, of which two are as far from 0 as 3, and all as far as 1.
    assert sign_flip_test([2, 1]) == pytest.approx(2 / 4)
    assert sign_flip_test([2, -1]) == pytest.approx(1)
    assert sign_flip_test([0, 0]) == 1
    # 3 and 1, 1: sums 5, 3, 3, 1 and their negatives.
    assert sign_flip_test([3, 1, 1]) == pytest.approx(2 / 8)
    assert sign_flip_test([3, 1, -1]) == pytest.approx(6 / 8)


def test_with_one_seed_it_is_mcnemar_s_test():
    chance = random.Random(0)
    for _ in range(20):
        a, b = ([chance.random() < share for _ in range(50)] for share in (0.5, 0.7))
        differences = [int(one) - int(other) for one, other in zip(a, b, strict=True)]
        assert sign_flip_test(differences) == pytest.approx(mcnemar(a, b).p_value)


def test_many_problems_and_seeds_do_not_overflow():
    assert sign_flip_test([3] * 2000) == pytest.approx(0, abs=1e-12)
    assert sign_flip_test([3, -3, 2, -2] * 1000) == pytest.approx(1)


def test_bootstrap_of_two_values():
    # The mean of n draws from {0, 1} with probability ½ has the deviation 1/(2·√n).
    interval = paired_bootstrap([0.0, 1.0] * 200)
    assert interval.estimate == 0.5
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.5 / math.sqrt(400), abs=0.005)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.5 / math.sqrt(400), abs=0.005)
    assert paired_bootstrap([0.25] * 5) == (0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="no differences"):
        paired_bootstrap([])


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04: times 3, 2, 1 they are 0.03, 0.06, 0.04, and the last may not be below 0.06.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
