"""AQuA, from a row to a result: everything but its own file goes through the kind of answer."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from latentplan.cli.data import check
from latentplan.evaluation.best_of_n import samples_of
from latentplan.evaluation.harness import evaluate
from latentplan.evaluation.lm_harness.latentplan_lm import accuracy, load
from latentplan.evaluation.metrics import mean_coherence, plan_scores, predictions_of
from latentplan.modeling.sampling import Sampling
from latentplan.problems.benchmarks import BENCHMARKS
from latentplan.problems.check import check_file
from latentplan.problems.problem import DataError
from latentplan.problems.reading import format_of_file, read_problems
from latentplan.rewards import BUILT_IN, LABELLED_WEIGHTS, RewardSet
from latentplan.rewards.sentence_coherence import natural_coherence
from latentplan.rollout.solve import Solution
from latentplan.serving.inspector.inspected_model import inspected_model
from latentplan.serving.inspector.views import judged, votes

ROWS = [
    {
        "question": "A pen costs 7 coins. What do 3 pens cost?",
        "options": ["A)10", "B)14", "C)21", "D)24", "E)37"],
        "rationale": "Each pen costs 7 coins.\n3 * 7 = 21\nSo 3 pens cost 21 coins.\nThe answer is C.",
        "correct": "C",
    },
    {
        "question": "x + 2 = 6. What is x?",
        "options": ["A) 4", "B) 8 coins", "C)None of these", "D)", "E)12"],
        "rationale": "Take 2 from both sides.\nx is 6 - 2 = 4.",
        "correct": "A",
    },
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "test.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def problems(file):
    return read_problems(file)


def test_rows(file, problems):
    assert format_of_file(file).name == "aqua"
    assert problems[0].question == (
        "A pen costs 7 coins. What do 3 pens cost?\nA) 10\nB) 14\nC) 21\nD) 24\nE) 37"
    )
    assert problems[0].steps == ("Each pen costs 7 coins.", "3 * 7 = 21", "So 3 pens cost 21 coins.")
    assert problems[1].question.splitlines()[1:5] == ["A) 4", "B) 8 coins", "C) None of these", "D) "]
    assert problems[1].steps == ("Take 2 from both sides.", "x is 6 - 2 = 4.")
    assert [(each.answer, each.answer_kind) for each in problems] == [("C", "choice"), ("A", "choice")]
    assert BENCHMARKS["aqua"].chain == "sentences"


@pytest.mark.parametrize(
    ("last", "steps"),
    [
        ("The answer is C.", 1),
        ("Answer : (C)", 1),
        ("Ans: Option C", 1),
        ("C", 1),
        ("Hence, the correct option is C", 1),
        ("C is the number of pens", 2),
        ("The answer is C coins", 2),
    ],
)
def test_a_last_line_that_only_names_the_option_is_no_step(tmp_path, last, steps):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**ROWS[0], "rationale": f"3 * 7 = 21\n{last}"}))
    assert len(read_problems(path)[0].steps) == steps


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"correct": "F"}, r"column 'correct' must be the letter of one option \(A, B, C, D, E\), not 'F'"),
        ({"options": ["A)1", "A)2"], "correct": "A"}, r"the letter of one option \(A, A\), not 'A'"),
        ({"options": ["10", "B)14"]}, "a letter, a bracket and a text in each, not '10'"),
        ({"options": "A)10 B)14"}, "column 'options' must be a list of texts"),
        ({"rationale": ""}, "column 'rationale' holds an empty text"),
    ],
)
def test_broken_rows(tmp_path, change, reason):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**ROWS[0], **change}))
    with pytest.raises(DataError, match=reason):
        read_problems(path, "aqua")


def test_data_check_counts_choices_and_doubts_no_answer(file):
    report = check_file(file)
    assert (report.format, report.answer_kinds, report.doubts) == ("aqua", {"choice": 2}, ())
    app = typer.Typer()
    app.command()(check)
    result = CliRunner().invoke(app, [str(file), "--benchmark", "aqua"])
    assert result.exit_code == 0
    assert "answers: 2 choice" in result.output
    assert "warning" not in result.output


def solution(completion, plan=None):
    return Solution(completion, plan, 2, 7, True)


def test_answers_are_judged_by_letter_and_scores_of_equations_do_not_apply(problems):
    plan = list(problems[0].steps)
    solved = [solution("### (c) 21", plan), solution("### 21", plan), solution("C", plan)]
    rows = predictions_of(0, problems[0], solved)
    assert [(row.answer, row.correct) for row in rows] == [("C", True), ("21", False), (None, False)]
    assert rows[0].to_json()["answer_kind"] == "choice"
    scores = plan_scores(problems, rows)
    for name in ("coherence_strict", "coherence_paper", "validity", "grounding", "plan"):
        assert getattr(scores, name) == [None] * 3
    # Two of three steps say nothing new (21 stands among the options); the calculation leads to the letter.
    assert scores.coherence_natural[0] == pytest.approx(1 / 3)
    assert natural_coherence(plan, "C", problems[0].question) == 0
    assert mean_coherence(scores).strict is None


def test_samples_that_name_one_option_vote_together(problems):
    solved = [solution(text) for text in ("### C", "### (c)", "### C) 21", "### A", "### 21", "nothing")]
    (samples,) = samples_of(problems, predictions_of(0, problems[0], solved), len(solved))
    assert samples.correct == [True, True, True, False, False, False]
    assert len(set(samples.answers[:3])) == 1
    assert len(set(samples.answers)) == 4


def test_rewards(problems):
    batch = {
        "prompts": [each.question for each in problems],
        "completions": ["### C) 21", "### B"],
        "answer": [each.answer for each in problems],
        "decoded_steps": [list(each.steps) for each in problems],
        "problems": problems,
    }
    assert BUILT_IN["accuracy"](**batch) == [1.0, 0.0]
    assert BUILT_IN["format"](**batch) == [1.0, 1.0]
    assert BUILT_IN["coherence_strict_if_correct"](**batch) == [None, None]
    assert RewardSet(LABELLED_WEIGHTS)(**batch).totals == [1.5, 0.5]


def test_the_inspector_knows_the_kind_of_its_examples(tmp_path, problems, make_system, as_loaded):
    rows = predictions_of(0, problems[0], [solution("### B")])
    folder = tmp_path / "run" / "evaluation"
    folder.mkdir(parents=True)
    (folder.parent / "run.json").write_text("{}")
    (folder / "aqua.jsonl").write_text(json.dumps(rows[0].to_json()) + "\n")
    subject = inspected_model("mine", as_loaded(make_system("no_cot")), folder.parent)
    question = problems[0].question
    assert subject.kind_of(question, "C").name == "choice"
    assert subject.kind_of("What do 4 pens cost?", "28").name == "number"
    plan = list(problems[0].steps)
    said = judged(subject, question, "### (c) 21", plan, "C")
    assert (said["answer"], said["correct"], list(said["plan"]["scores"])) == (
        "C",
        True,
        ["coherence_natural"],
    )
    assert votes([solution("### (c)")], "C", subject.kind_of(question, "C"))[0]["correct"] is True


def test_lm_harness_judges_by_the_kind(file):
    pytest.importorskip("datasets")
    rows = load("aqua", {"aqua": str(file)})["test"]
    assert [accuracy(rows[0], [text])["accuracy"] for text in ("### C) 21", "### 21")] == [1.0, 0.0]


def test_evaluate(file, problems, make_system, as_loaded):
    model = as_loaded(make_system("atp_latent"))
    result, rows = evaluate(model, problems, benchmark="aqua", sampling=Sampling.greedy(4))
    assert (result.num_problems, result.accuracy.estimate) == (2, 0.0)
    assert {row.answer_kind for row in rows} == {"choice"}
    assert result.validity is result.grounding is result.plan_score is None
    assert result.coherence is None or result.coherence.strict is None
