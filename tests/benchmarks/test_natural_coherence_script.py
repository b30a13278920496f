"""The benchmark of natural coherence: what breaks a chain does, and AUC is what it says."""

import random
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from latentplan.problems.problem import Problem
from latentplan.rewards.sentence_coherence import natural_coherence

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROBLEMS = [
    Problem("2 bags of 3 and 4 more?", ("2*3 = 6 in bags.", "6+4 = 10 in all."), "10"),
    Problem("5 less 1, twice?", ("5-1 = 4 left.", "4*2 = 8."), "8"),
]


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import natural_coherence as measuring
        import prosqa_small
    finally:
        sys.path.remove(str(BENCHMARKS))
    return measuring, prosqa_small


def test_auc_of_hand(scripts):
    measuring, _ = scripts
    assert measuring.auc(np.array([1.0, 0.5]), np.array([0.0, 0.5])) == (2 + 1.5) / 4
    estimate, low, high = measuring.auc_with_interval(np.ones(5), np.zeros(5), resamples=20)
    assert (estimate, low, high) == (1, 1, 1)


def test_broken_chains_differ_from_the_intact_one(scripts):
    measuring, _ = scripts
    rng = random.Random(1)
    problem, other = PROBLEMS
    assert measuring.shuffled(problem, PROBLEMS, rng) == list(problem.steps[::-1])
    assert measuring.of_another(problem, PROBLEMS, rng) == list(other.steps)
    replaced = measuring.one_of_another(problem, PROBLEMS, rng)
    assert len(set(replaced) & set(other.steps)) == len(set(replaced) & set(problem.steps)) == 1
    for _ in range(20):
        swapped = measuring.number(problem, PROBLEMS, rng)
        assert sum(new != old for new, old in zip(swapped, problem.steps, strict=True)) == 1
    assert measuring.name(problem, PROBLEMS, rng) is None


def test_word_overlap_counts_what_comes_again(scripts):
    measuring, _ = scripts
    # 2 3 6 in bags | 6 4 10 in all | 10: of {2, 3, 6, bags} 6 comes again, of {6, 4, 10} 10.
    assert measuring.overlap(PROBLEMS[0].steps, PROBLEMS[0]) == pytest.approx((1 / 4 + 1 / 3) / 2)


def test_small_problems_in_the_sentences_of_prosqa_are_coherent(scripts):
    _, small = scripts
    row = {
        "idx_to_symbol": ["Tom", "Bob", "terp", "brim", "lem", "gor", "dax"],
        "edges": [[0, 2], [2, 3], [2, 5], [3, 4], [1, 5], [5, 6]],
    }
    parents = small.parents_of(row)
    assert parents == {"terp": "brim", "brim": "lem", "gor": "dax"}
    made = small.different(small.problems(parents, ["Tom", "Bob", "Eve"], random.Random(0)), 12)
    assert len({problem.question for problem in made}) == 12
    for problem in islice(made, 12):
        assert all(step in problem.question for step in problem.steps)
        assert natural_coherence(problem.steps, problem.answer, problem.question) == 1
