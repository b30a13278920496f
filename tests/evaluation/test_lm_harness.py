"""Needs lm-eval: pip install -c constraints.txt -e '.[lm-eval]'."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("lm_eval", reason="lm-eval, the extra of that name, is not installed")

import lm_eval.models  # noqa: F401
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from latentplan.evaluation.harness import evaluate
from latentplan.evaluation.lm_harness import TASKS
from latentplan.evaluation.lm_harness import latentplan_lm as problems
from latentplan.evaluation.lm_harness.latentplan_lm import LatentplanLM, cut
from latentplan.problems.problem import DataError
from latentplan.problems.sources import parse_benchmark_argument

# Rows of our own writing in the published layouts; the random models below count in small numbers, so some
# of their answers are right.
FILES = {
    "gsm8k": [
        {
            "question": f"the counter shows {n} . it goes up by 1 .\n",
            "answer": f"It is <<{n}+1={n + 1}>>\n#### {n + 1}",
        }
        for n in range(9)
    ],
    "gsm-hard": [
        {
            "input": f"the counter shows {n} . it is tripled . what does it show ?",
            "code": f"def solution():\n    shown = {n}\n    result = shown * 3\n    return result",
            "target": float(3 * n),
        }
        for n in range(9)
    ],
    "svamp": [
        {
            "ID": f"x-{n}",
            "Body": f"the dial starts at {n}",
            "Question": "it moves on by 2 . where is it ?",
            "Equation": f"( {n}.0 + 2.0 )",
            "Answer": n + 2.0,
            "Type": "Addition",
        }
        for n in range(9)
    ],
    "multiarith": [
        {"question": f"the hand shows {n} . then 3 more . now ?", "final_ans": str(n + 3)} for n in range(9)
    ],
}
NAMES = {name: f"latentplan_{name.replace('-', '_')}" for name in FILES}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, rows in FILES.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(folder / f"{name}.jsonl") for name in FILES}


@pytest.fixture(scope="module")
def folder(make_system, as_loaded, overfit, clock_tokenizer, tmp_path_factory, clock_problems):
    """A tiny model, trained just enough to write answers behind the marker."""
    system = make_system("atp_latent")
    overfit(system, clock_problems[:6], bound=0.3, steps=40)
    path = tmp_path_factory.mktemp("model")
    system.eval().save_pretrained(path, clock_tokenizer)
    return path


@pytest.fixture(scope="module")
def harness(folder, files):
    """What lm_eval finds on the four tasks, three trajectories at a time."""
    return simple_evaluate(
        model="latentplan",
        model_args={"pretrained": str(folder), "batch_size": 3},
        tasks=list(NAMES.values()),
        device="cpu",
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"files": files}),
        bootstrap_iters=0,
    )


@pytest.mark.parametrize("benchmark", FILES)
def test_the_harness_agrees_with_evaluate_problem_by_problem(harness, folder, files, benchmark):
    asked = parse_benchmark_argument(f"{benchmark}={files[benchmark]}").load()
    model = LatentplanLM(str(folder), device="cpu").model
    result, predictions = evaluate(model, asked, benchmark=benchmark, latent_use=False)
    samples = sorted(harness["samples"][NAMES[benchmark]], key=lambda sample: sample["doc_id"])
    assert len(samples) == len(predictions) == len(FILES[benchmark])
    for sample, prediction in zip(samples, predictions, strict=True):
        assert sample["arguments"][0][0] == prediction.question
        assert sample["target"] == prediction.reference
        assert sample["filtered_resps"] == [prediction.completion]
        assert sample["accuracy"] == float(prediction.correct)
    assert harness["results"][NAMES[benchmark]]["accuracy,none"] == pytest.approx(result.accuracy.estimate)


def test_the_agreement_is_of_right_and_of_wrong_answers(harness):
    verdicts = {sample["accuracy"] for name in NAMES.values() for sample in harness["samples"][name]}
    assert verdicts == {0.0, 1.0}


def test_all_tasks_have_one_tag(files):
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"files": files})
    assert sorted(manager.load(["latentplan"])["tasks"]) == sorted(NAMES.values())


def request(text: str, task: str = "t", **settings):
    return SimpleNamespace(args=(text, settings), task_name=task)


@pytest.fixture(scope="module")
def model(folder):
    return LatentplanLM(str(folder), batch_size="auto", device="cpu", max_new_tokens=6)


def test_answers_come_in_the_order_of_the_requests(model):
    texts = [f"the dial shows {n} . it moves on by 3 . where is it ?" for n in range(6)]
    alone = [model.generate_until([request(text)], disable_tqdm=True)[0] for text in texts]
    mixed = [request(text, task=str(place % 2)) for place, text in enumerate(texts)]
    assert model.generate_until(mixed, disable_tqdm=True) == alone


def test_no_folder_is_named():
    with pytest.raises(ValueError, match="--model_args pretrained=runs/NAME"):
        LatentplanLM()


def test_until_cuts(model):
    assert cut("### 9\n\nQ", ["Q", "\n"]) == "### 9"
    assert cut("### 9", "#") == ""
    assert cut("### 9", ["", "x"]) == cut("### 9", None) == "### 9"
    text = "the dial shows 1 . where is it ?"
    (whole,) = model.generate_until([request(text)], disable_tqdm=True)
    (half,) = model.generate_until([request(text, until=[whole[2:]])], disable_tqdm=True)
    assert half == whole[:2]


@pytest.mark.parametrize(
    ("settings", "temperature", "longest"),
    [
        ({}, 0.0, 6),
        ({"do_sample": False, "temperature": 0.7, "max_gen_toks": 9}, 0.0, 9),
        ({"do_sample": True, "max_new_tokens": 3}, 1.0, 3),
        ({"do_sample": True, "temperature": 0.5}, 0.5, 6),
        ({"temperature": 0.5}, 0.5, 6),
        ({"do_sample": True, "temperature": 0.0}, 0.0, 6),
    ],
)
def test_generation_settings(model, settings, temperature, longest):
    sampling = model._sampling(settings)
    assert (sampling.temperature, sampling.latent_temperature) == (temperature, temperature)
    assert sampling.max_new_tokens == longest


def test_what_a_latent_model_cannot_do_is_refused(model):
    with pytest.raises(ValueError, match="no generation setting top_p"):
        model.generate_until([request("the dial", top_p=0.9)], disable_tqdm=True)
    with pytest.raises(NotImplementedError, match="tasks that generate"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="apply_chat_template"):
        model.apply_chat_template([])


def test_data_that_cannot_be_read(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        problems.load("svamp", files={"svamp": str(empty)})
    with pytest.raises(DataError, match=r"here with --metadata .*mawps-asdiv.*FILE"):
        problems.load("mawps-asdiv")
    with pytest.raises(DataError, match="must be a mapping"):
        problems.load("svamp", files="SVAMP.json")
