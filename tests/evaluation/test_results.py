from __future__ import annotations

import io
import json
from dataclasses import asdict

import pytest
from rich.console import Console

from latentplan.evaluation.metrics import (
    accuracy_estimate,
    group_by_steps,
    mean_coherence,
    mean_of,
    mean_tokens,
    pass_at_powers,
    plan_scores,
    predictions_of,
)
from latentplan.evaluation.result_tables import results_table
from latentplan.evaluation.results import (
    Coherence,
    Estimate,
    EvaluationResult,
    LatentUse,
    Reconstruction,
    SamplingSettings,
    StepGroup,
    StopCalibration,
    Tokens,
)
from latentplan.evaluation.statistics import wilson_interval
from latentplan.problems.problem import Problem
from latentplan.rewards.plan_graph import result_of
from latentplan.rollout.decoding_accuracy import (
    DecodedPlans,
    latent_steps,
    nearest_share,
    step_share,
    text_of,
)
from latentplan.rollout.solve import Solution

PROBLEMS = [
    Problem("it is at 7 . add 3 . double it .", ("<<7+3=10>>", "<<10*2=9>>"), "9", modulus=11),
    Problem("Ann has 2 pens and gets 3 .", ("<<2+3=5>>",), "5"),
    Problem("Bob has 4 pens and gets 4 .", ("<<4+4=8>>",), "8"),
]
SOLUTIONS = [
    Solution("### 9", ["<<7+3=10>>", "<<10*2=9>>"], num_latents=4, num_tokens=6, finished=True),
    Solution("### 6", ["<<2+3=5>>", "<<9+1=10>>"], num_latents=4, num_tokens=7, finished=True),
    Solution("the answer is 8", ["<<4+4=9>>"], num_latents=2, num_tokens=9, finished=False),
]


def predictions():
    return [
        prediction
        for index, (problem, solution) in enumerate(zip(PROBLEMS, SOLUTIONS, strict=True))
        for prediction in predictions_of(index, problem, [solution])
    ]


def test_predictions():
    rows = predictions()
    assert [row.correct for row in rows] == [True, False, False]
    assert [row.answer for row in rows] == ["9", "6", None]
    assert rows[0].to_json() == {
        "index": 0,
        "sample": 0,
        "question": PROBLEMS[0].question,
        "reference": "9",
        "answer": "9",
        "correct": True,
        "completion": "### 9",
        "plan": ["<<7+3=10>>", "<<10*2=9>>"],
        "num_latents": 4,
        "num_tokens": 6,
        "finished": True,
        "steps": ["<<7+3=10>>", "<<10*2=9>>"],
        "modulus": 11,
    }


def test_accuracy_and_tokens():
    estimate = accuracy_estimate(predictions())
    assert (estimate.estimate, estimate.low, estimate.high) == wilson_interval(1, 3)
    tokens = mean_tokens(predictions())
    assert asdict(tokens) == pytest.approx({"mean": 22 / 3, "latents": 10 / 3, "text": 4})


def test_plan_scores():
    scores = plan_scores(PROBLEMS, predictions())
    # The second plan drops its 5 and ends in 10, not in the answer 6; the third has no answer to end in.
    assert scores.coherence_strict == [1, 0, 0]
    assert scores.validity == [1, 1, 0]
    assert scores.grounding == [1, 0.5, 1]
    assert scores.plan == [1, 0, 0]
    assert mean_coherence(scores).strict == pytest.approx(1 / 3)


def test_chains_in_sentences_have_a_coherence_of_their_own():
    question = "Every terp is a brim. Tom is a terp. Bob is a fim. Is Tom a brim or fim?"
    problem = Problem(question, ("Tom is a terp.", "Every terp is a brim."), "Tom is a brim.")
    good = Solution("### Tom is a brim.", list(problem.steps), 2, 7, True)
    half = Solution("### Tom is a brim.", ["Tom is a terp.", "Tom is a terp."], 2, 7, True)
    bare = Solution("### Tom is a brim.", None, 0, 7, True)
    rows = predictions_of(0, problem, [good, half, bare])
    scores = plan_scores([problem], rows)
    assert scores.coherence_natural == [1, 0, None]
    assert scores.coherence == scores.coherence_natural
    # No equation leads to such an answer: the scores of equations do not apply, rather than being 0.
    assert mean_coherence(scores) == Coherence(strict=None, paper=None, natural=0.5)
    assert scores.validity == scores.grounding == scores.plan == [None] * 3
    assert plan_scores(PROBLEMS, predictions()).coherence_natural == [None] * 3
    text = rendered(full_result(coherence=Coherence(None, None, 0.25)))
    assert "25.0%" in next(line for line in text.splitlines() if "of sentences" in line)
    assert "of sentences" not in rendered(full_result())


def test_results_of_before_the_natural_coherence_are_read():
    row = full_result().to_json()
    del row["coherence"]["natural"]
    assert EvaluationResult.from_json(row).coherence.natural is None


def test_by_steps():
    rows = predictions()
    groups = group_by_steps(rows, plan_scores(PROBLEMS, rows).coherence_strict)
    assert groups == {"1": StepGroup(2, 0.0, 8.0, 0.0), "2": StepGroup(1, 1.0, 6.0, 1.0)}


def test_without_plans():
    bare = predictions_of(0, PROBLEMS[0], [Solution("### 9", None, 0, 2, True)])
    scores = plan_scores(PROBLEMS, bare)
    assert mean_coherence(scores) is None
    assert mean_of(scores.plan) is None
    assert group_by_steps(bare, scores.coherence_strict)["2"].coherence is None


def test_several_samples():
    right, wrong = Solution("### 5", None, 0, 2, True), Solution("### 4", None, 0, 2, True)
    rows = [
        *predictions_of(0, PROBLEMS[1], [right, wrong, right, wrong]),
        *predictions_of(1, PROBLEMS[1], [wrong, wrong, wrong, wrong]),
        *predictions_of(2, PROBLEMS[1], [right, right, right, right]),
    ]
    estimate = accuracy_estimate(rows)
    assert estimate.estimate == 0.5
    assert (estimate.low, estimate.high) == (0.0, 1.0)  # t interval of (½, 0, 1), cut at what is possible
    assert pass_at_powers(rows, 4) == pytest.approx({"1": 0.5, "2": (5 / 6 + 1) / 3, "4": 2 / 3})
    assert group_by_steps(rows, [None] * 12)["1"].num_problems == 3
    assert accuracy_estimate(rows[:4]) == Estimate(0.5, None, None)


@pytest.mark.parametrize(
    ("decoded", "exact", "result"),
    [
        (["<<7+3=10>>", "<<10*2=9>>"], (2, 2), (2, 2)),
        (["<<3+7=10>>", "<<10*2=9>>"], (1, 2), (2, 2)),
        (["<<7+3=10>>"], (1, 2), (1, 2)),
        (["<<7+3=10>>", "<<10*2=9>>", "<<1+1=2>>"], (2, 3), (2, 3)),
        (["<<10*2=9>>", "?"], (0, 2), (0, 2)),
        ([], (0, 2), (0, 2)),
    ],
)
def test_step_share(decoded, exact, result):
    chain = list(PROBLEMS[0].steps)
    assert step_share(decoded, chain, text_of) == exact
    assert step_share(decoded, chain, result_of) == result


def test_nearest_of_several_plans():
    plans = [["<<1+2=3>>", "<<3+4=7>>"], ["<<1+4=5>>", "<<5+2=7>>"]]
    assert nearest_share(["<<1+4=5>>", "<<5+2=7>>"], plans, text_of) == (2, 2)
    assert nearest_share(["<<2+4=6>>", "<<1+6=7>>"], plans, result_of) == (1, 2)
    assert DecodedPlans([plans[0], ["?"]], [plans, plans]).share(text_of).value == 0.5
    assert DecodedPlans([], []).share(text_of).value is None


def test_chains_of_sentences_have_no_results():
    chain = ["Ann is a wumpus.", "Every wumpus is wise."]
    assert step_share(chain, chain, text_of) == (2, 2)
    assert DecodedPlans([chain], [[chain]]).share(result_of).value is None


def test_rest_of_a_longer_chain():
    chain = ["<<1+1=2>>", "<<2+1=3>>", "<<3+1=4>>"]
    assert latent_steps(chain, 2, "\n") == ["<<1+1=2>>", "<<2+1=3>>\n<<3+1=4>>"]
    assert latent_steps(chain, 5, "\n") == chain
    assert result_of("<<2+1=3>>\n<<3+1=4>>") == 4
    assert result_of("3+1=4") == 4
    assert result_of("so there are four") is None


def full_result(**changes):
    values = {
        "model": "runs/atp/model",
        "method": "atp_latent",
        "benchmark": "minigsm:clock",
        "data_fingerprint": "0123456789abcdef",
        "num_problems": 3,
        "sampling": SamplingSettings(0.0, 0.0, 64),
        "seed": 0,
        "num_generations": 1,
        "accuracy": Estimate(0.75, 0.5, 0.875),
        "tokens": Tokens(8.5, 6.5, 2.0),
        "finished": 1.0,
        "seconds": 1.25,
        "created": "2026-01-02T03:04:05+00:00",
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
        "pass_at_k": {"1": 0.75, "2": 0.8},
        "coherence": Coherence(0.5, 0.6),
        "validity": 0.9,
        "grounding": 0.8,
        "plan_score": 0.4,
        "reconstruction": Reconstruction(0.85, 0.9, 0.7, None),
        "latent_use": LatentUse(0.75, 0.1, 0.2, None),
        "stop": StopCalibration(1.0, 2.5, 2.5),
        "by_steps": {"2": StepGroup(3, 0.75, 8.5, None)},
        "warnings": ["[careful]"],
    }
    return EvaluationResult(**{**values, **changes})


def bare_result(**changes):
    absent = dict.fromkeys(
        [
            "pass_at_k",
            "coherence",
            "validity",
            "grounding",
            "plan_score",
            "reconstruction",
            "latent_use",
            "stop",
        ]
    )
    return full_result(**absent, warnings=[], **changes)


@pytest.mark.parametrize("result", [full_result(), bare_result()], ids=["full", "bare"])
def test_round_trip(result, tmp_path):
    file = result.save(tmp_path / "evaluation" / "clock.json")
    assert EvaluationResult.load(file) == result
    assert next(iter(json.loads(file.read_text()))) == "format_version"
    assert [path.name for path in file.parent.iterdir()] == ["clock.json"]


def test_failed_save_leaves_the_old_file(tmp_path):
    file = full_result().save(tmp_path / "clock.json")
    with pytest.raises(ValueError, match="JSON"):
        full_result(seconds=float("nan")).save(file)
    assert EvaluationResult.load(file) == full_result()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version is 2"),
        ({"extra": 1}, "no extra"),
        ({"accuracy": {"wrong": 1}}, "not an evaluation result"),
    ],
)
def test_other_files(change, message, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps({**full_result().to_json(), **change}))
    with pytest.raises(ValueError, match=message) as caught:
        EvaluationResult.load(file)
    assert str(file) in str(caught.value)


def test_missing_values(tmp_path):
    (tmp_path / "half.json").write_text('{"format_version": 1}')
    with pytest.raises(ValueError, match="missing"):
        EvaluationResult.load(tmp_path / "half.json")


def rendered(*results):
    console = Console(width=120, file=io.StringIO())
    console.print(results_table(results))
    return console.file.getvalue()


def test_table_of_two():
    text = rendered(full_result(), bare_result(benchmark="svamp", accuracy=Estimate(0.5)))
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert "75.0% [50.0, 87.5]" in lines["accuracy"]
    assert "50.0% " in lines["accuracy"]
    assert "6.5 + 2.0" in lines["latent + text"]
    assert "75.0% of 3" in lines["2 steps"]
    assert "–" in lines["teacher, exact"]
    assert "85.0%" in lines["teacher, exact"]
    assert "free, result" not in lines
    assert "warning: minigsm:clock: [careful]" in text


def test_table_leaves_out_what_nobody_has():
    text = rendered(bare_result())
    for absent in ("reconstruction", "coherence", "pass@", "accuracy with latents", "stops"):
        assert absent not in text
