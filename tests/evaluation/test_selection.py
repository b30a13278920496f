"""Curves of small models, files, tables and the plot."""

import json

import pytest

from latentplan.evaluation.best_of_n import AT_K, Samples, beside, sample_model, samples_of
from latentplan.evaluation.metrics import predictions_of
from latentplan.evaluation.result_tables import best_of_n_markdown, best_of_n_table
from latentplan.evaluation.results import (
    COHERENCE,
    MAJORITY,
    PASS,
    PLAN_SCORE,
    PLAN_SCORE_VOTE,
    SELECTORS,
    SamplingSettings,
    SelectionResult,
)
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import Solution

WARM = Sampling(1.0, 1.0, 6)


@pytest.fixture(scope="module")
def sampled(make_system, as_loaded, clock_problems):
    def build(method):
        return sample_model(
            as_loaded(make_system(method)),
            clock_problems[:6],
            name=method,
            sampling=WARM,
            num_generations=5,
            seed=0,
            batch_size=8,
        )

    return {method: build(method) for method in ("cot", "atp_latent", "coconut")}


@pytest.fixture(scope="module")
def result(sampled):
    curves = [beside(sampled["atp_latent"], sampled["cot"]), sampled["cot"].curves]
    return SelectionResult(
        "minigsm:clock", "f", 6, 5, SamplingSettings(1.0, 1.0, 6), 0, "cot", curves, "now", "cpu"
    )


def test_all_k_come_from_one_rollout(sampled):
    curves = sampled["atp_latent"].curves
    assert list(curves.curves) == list(SELECTORS)
    for points in curves.curves.values():
        assert [point.k for point in points] == [1, 2, 4]
        assert [point.tokens for point in points] == pytest.approx([k * curves.tokens for k in (1, 2, 4)])
    at_one = {points[0].accuracy.estimate for points in curves.curves.values()}
    assert max(at_one) == pytest.approx(min(at_one))
    assert all(len(each.correct) == 5 for each in sampled["atp_latent"].samples)
    # No decoder, no plans: nothing to choose by.
    assert list(sampled["coconut"].curves.curves) == [PASS, MAJORITY]


def test_answers_vote_as_numbers_and_plans_are_scored():
    problem = Problem("Ann has 3 and 4.", ("<<3+4=7>>",), "7")
    texts = ["### 7", "### 7.0", "### 8", "no answer"]
    plans = [["<<3+4=7>>"], ["<<3+4=8>>"], [], ["<<3+4=7>>"]]
    solutions = [Solution(text, plan, 0, 4, True) for text, plan in zip(texts, plans, strict=True)]
    (found,) = samples_of([problem], predictions_of(0, problem, solutions), 4)
    assert found.correct == [True, True, False, False]
    assert found.answers[0] == found.answers[1] != found.answers[2]
    assert found.answers[3] is None
    assert found.plan_score == [1, 0, 0, 0]
    assert found.coherence == [1, 0, 0, 0]


def test_each_way_to_choose_by_hand():
    samples = Samples([True, False, False], ["7", "8", "8"], [1.0, 0.5, 0.0], [0.0, 1.0, 1.0])
    assert {name: at_k(samples, 3) for name, at_k in AT_K.items()} == {
        PASS: 1,
        MAJORITY: 0,
        COHERENCE: 1,
        PLAN_SCORE: 0,
        PLAN_SCORE_VOTE: 0,
    }


def test_beside_the_reference_only_as_many_tokens_as_were_spent(sampled, result):
    tokens = sampled["cot"].curves.tokens
    rows = result.models[0].equal_tokens
    assert {row.selector for row in rows} == set(SELECTORS) - {PASS}
    for row in rows:
        assert row.reference_k == min(5, int(row.tokens / tokens))
        assert (row.difference is None) == (row.reference_k == 0)
        if row.difference is not None:
            expected = row.accuracy.estimate - row.reference_accuracy.estimate
            assert row.difference.estimate == pytest.approx(expected)


def test_json_comes_back(result, tmp_path):
    file = result.save(tmp_path / "new" / "x.json")
    assert SelectionResult.load(file) == result
    row = json.loads(file.read_text())
    for change, message in (
        ({"format_version": 7}, "format_version is 7"),
        ({"colour": 1}, "a selection result has no colour"),
        ({"models": [{}]}, "not a selection result"),
    ):
        file.write_text(json.dumps({**row, **change}))
        with pytest.raises(ValueError, match=f"x.json: {message}"):
            SelectionResult.load(file)


def test_tables_name_every_way_to_choose(result):
    text = best_of_n_markdown(result)
    assert all(f"| {title} |" in text for title in SELECTORS.values())
    assert "cot needs" in text
    assert "| tokens a question |" in text
    assert len(best_of_n_table(result).renderables) == 4


def test_no_problems(make_system, as_loaded):
    with pytest.raises(ValueError, match="no problems"):
        sample_model(
            as_loaded(make_system("cot")),
            [],
            name="x",
            sampling=WARM,
            num_generations=2,
            seed=0,
            batch_size=8,
        )
