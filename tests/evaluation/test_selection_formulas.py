"""Choosing one of k samples: by hand, against all subsets counted one by one, and laws that must hold."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.evaluation.best_of_n import (
    Answer,
    best_at_k,
    best_then_vote_at_k,
    majority_at_k,
    tally,
)
from latentplan.evaluation.statistics import pass_at_k

ANSWERS = st.lists(st.sampled_from(["9", "4", "7", None]), min_size=1, max_size=7)
SCORES = st.sampled_from([None, 0.0, 0.5, 1.0])


def vote_share(answers, reference):
    """How often a majority vote of these answers is the reference, ties being broken at random."""
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return 0.0
    most = [answer for answer, count in counts.items() if count == max(counts.values())]
    return (reference in most) / len(most)


def counted(size, k, share):
    """The mean of `share` over all k-subsets of `size` samples."""
    subsets = list(combinations(range(size), k))
    return sum(map(share, subsets)) / len(subsets)


def test_majority_by_hand():
    # a a a b, a right: of two samples, 3 pairs aa and 3 ties ab.
    assert majority_at_k([Answer(3, True), Answer(1, False)], 0) == pytest.approx([3 / 4, 3 / 4, 1, 1])
    # a b, and one that says nothing: pairs ab (1/2), a– (1), b– (0).
    assert majority_at_k([Answer(1, True), Answer(1, False)], 1) == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    assert majority_at_k([Answer(4, False)], 0) == [0, 0, 0, 0]
    assert majority_at_k([], 2) == [0, 0]


def test_best_by_hand():
    # Of 3 pairs two hold the best, which is right; in the third one of the equal two is right.
    assert best_at_k([0.9, 0.5, 0.5], [True, False, True], 2) == pytest.approx(2 / 3 + 1 / 3 / 2)
    assert best_at_k([None, 0.0], [True, False], 2) == 0  # no plan at all is below the worst plan
    with pytest.raises(ValueError, match="best of 3"):
        best_at_k([0.1, 0.2], [True, False], 3)


def test_vote_among_the_best_by_hand():
    scores, answers = [1.0, 1.0, 1.0, 0.0], ["9", "9", "4", "4"]
    right = [answer == "9" for answer in answers]
    assert best_then_vote_at_k(scores, right, answers, 4) == 1
    assert best_at_k(scores, right, 4) == pytest.approx(2 / 3)


@settings(max_examples=60, deadline=None)
@given(answers=ANSWERS)
def test_majority_is_the_mean_over_all_subsets(answers):
    found = majority_at_k(*tally(answers, [answer == "9" for answer in answers]))
    for k in range(1, len(answers) + 1):
        share = counted(len(answers), k, lambda subset: vote_share([answers[at] for at in subset], "9"))
        assert found[k - 1] == pytest.approx(share)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from(["9", "4", None]), SCORES), min_size=1, max_size=6))
def test_best_is_the_mean_over_all_subsets(rows):
    answers, scores = [row[0] for row in rows], [row[1] for row in rows]
    right = [answer == "9" for answer in answers]

    def top(subset):
        values = {at: -1.0 if scores[at] is None else scores[at] for at in subset}
        return [at for at in subset if values[at] == max(values.values())]

    for k in range(1, len(rows) + 1):
        random_tie = counted(
            len(rows), k, lambda subset: sum(right[at] for at in top(subset)) / len(top(subset))
        )
        voted = counted(len(rows), k, lambda subset: vote_share([answers[at] for at in top(subset)], "9"))
        assert best_at_k(scores, right, k) == pytest.approx(random_tie)
        assert best_then_vote_at_k(scores, right, answers, k) == pytest.approx(voted)


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(st.sampled_from(["9", "4", "7"]), min_size=1, max_size=40))
def test_laws(answers):
    right = [answer == "9" for answer in answers]
    size, mean = len(answers), sum(right) / len(answers)
    majority = majority_at_k(*tally(answers, right))
    assert majority[0] == pytest.approx(mean)  # of one sample there is nothing to vote on
    assert majority[-1] == pytest.approx(vote_share(answers, "9"))  # of all samples there is one subset
    for k in {1, (size + 1) // 2, size}:
        passed = pass_at_k(size, sum(right), k)
        assert best_at_k([float(hit) for hit in right], right, k) == pytest.approx(passed)
        assert best_at_k([0.5] * size, right, k) == pytest.approx(mean)
        assert best_then_vote_at_k([0.5] * size, right, answers, k) == pytest.approx(majority[k - 1])
        assert majority[k - 1] <= passed + 1e-12


def test_many_samples_with_many_answers_are_quick_and_stay_probabilities():
    spread = [Answer(2, place == 0) for place in range(32)]
    found = majority_at_k(spread, 0)
    assert len(found) == 64
    assert found == pytest.approx([1 / 32] * 64)  # all answers are alike, so each wins as often
    strong = majority_at_k([Answer(60, True), Answer(40, False)], 12)
    assert all(0 <= chance <= 1 + 1e-12 for chance in strong)
    assert strong[-1] == 1
