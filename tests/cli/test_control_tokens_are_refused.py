"""Every way in which text of users and data reaches a model: a control token is refused and named in each."""

from __future__ import annotations

import importlib.util
import json

import pytest
import typer
from fastapi.testclient import TestClient
from tokenizer_families import FAMILIES, make
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from latentplan.cli import ask, attribute, diagnose, evaluate, select, train, visualize
from latentplan.cli import data as data_check
from latentplan.encoding.control_tokens import ControlTokenError
from latentplan.evaluation.harness import evaluate as run_evaluation
from latentplan.modeling.loading import load_model
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.decoding_accuracy import Labels
from latentplan.rollout.solve import question_batch, solve
from latentplan.serving.server import create_app
from latentplan.serving.settings import ServeSettings
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system
from latentplan.training.rollout_batch import KnownAnswers

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
FINE = Problem("Ann has 3 pens . How many ?", ("<<3+4=7>>",), "7")
GREEDY = Sampling.greedy(2)
runner = CliRunner()
app = typer.Typer()
for command in (ask.ask, evaluate.evaluate, select.select, diagnose.diagnose, attribute.attribute):
    app.command()(command)
app.command()(visualize.visualize)
app.command()(data_check.check)
for command in (train.sft, train.grpo):
    app.command(context_settings=train.PASS_THROUGH)(command)


class Case:
    """A model of one family, with a question that it refuses."""

    def __init__(self, family: str, folder):
        _, self.chat, refused, _ = FAMILIES[family]
        (self.question, self.token), *_ = refused.items()
        self.base, self.run = folder / "base", folder / "run"
        tokenizer = make(family)
        config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SIZES)
        LlamaForCausalLM(config).save_pretrained(self.base)
        tokenizer.save_pretrained(self.base)
        model = ModelArguments(model_name_or_path=str(self.base), chat_template=self.chat)
        settings = SFTConfig(output_dir=str(folder / "none"), max_latent_steps=2, use_cpu=True)
        system, tokenizer = initialise_system(model, settings, ())
        system.save_pretrained(self.run / "model", tokenizer)
        self.fine = write(folder / "fine.jsonl", Problem("Ann has 4 pens . How many ?", (), "4"))
        self.file = write(folder / "mine.jsonl", FINE, Problem(self.question, (), "7"))
        self.loaded = load_model(self.run)


def write(file, *problems):
    file.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems))
    return str(file)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param))


def training(case, command, *flags):
    start = case.base if command == "sft" else case.run
    settings = {
        "model_name_or_path": start,
        "output_dir": case.run.parent / f"{command}-{len(flags)}-{'eval' in str(flags)}",
        "report_to": "none",
        "use_cpu": "true",
        "per_device_train_batch_size": 2,
    }
    if case.chat and command == "sft":
        settings["chat_template"] = "true"
    settings |= {"curriculum_steps": 1} if command == "sft" else {"max_steps": 1, "num_generations": 2}
    return [
        command,
        *(str(word) for name, value in settings.items() for word in (f"--{name}", value)),
        *flags,
    ]


COMMANDS = {
    "evaluate": lambda case: ["evaluate", case.run, "--benchmark", case.file],
    "select": lambda case: ["select", case.run, "--benchmark", case.file],
    "diagnose": lambda case: ["diagnose", case.run, "--benchmark", case.file],
    "visualize": lambda case: ["visualize", case.run, "--benchmark", case.file],
    "attribute": lambda case: ["attribute", case.run, case.run / "model", "--benchmark", case.file],
    "data check, run": lambda case: ["check", case.file, "--model_name_or_path", case.run],
    "data check, backbone": lambda case: ["check", case.file, "--model_name_or_path", case.base],
    "sft": lambda case: training(case, "sft", "--dataset_name", case.file),
    "grpo": lambda case: training(case, "grpo", "--dataset_name", case.file),
    "sft, on disk": lambda case: training(
        case, "sft", "--dataset_name", case.file, "--dataset_streaming", "true"
    ),
    "sft, validation": lambda case: training(
        case,
        "sft",
        *("--dataset_name", case.fine, "--eval_dataset_name", case.file, "--eval_strategy", "steps"),
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_name_file_line_and_token(name, case, monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTPLAN_CACHE", str(tmp_path / "cache"))
    if name == "visualize":
        pytest.importorskip("matplotlib")
        pytest.importorskip("sklearn")
    result = runner.invoke(app, [str(word) for word in COMMANDS[name](case)], env={"COLUMNS": "300"})
    assert result.exit_code == (1 if name.startswith("data check") else 2), result.output
    assert f"{case.file}:2: the question holds {case.token!r}, a control token" in result.output


def test_ask(case):
    result = runner.invoke(app, ["ask", str(case.run), case.question], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert f"error: the question holds {case.token!r}, a control token" in result.stderr
    assert runner.invoke(app, ["ask", str(case.run), FINE.question, "--max_new_tokens", "1"]).exit_code == 0


def test_the_library(case):
    model, bad = case.loaded, Problem(case.question, (case.question,), case.question)
    for call in (
        lambda: solve(model, [FINE.question, bad.question], GREEDY),
        lambda: question_batch(model, [bad.question]),
        lambda: run_evaluation(model, [FINE, bad], sampling=GREEDY),
        lambda: KnownAnswers.of_problems(model, [Problem("3 ?", (), case.question)]),
        lambda: Labels(model, [Problem("3 ?", (case.question,), "7")], all_plans=False),
    ):
        with pytest.raises(ControlTokenError) as caught:
            call()
        assert caught.value.token == case.token
    with pytest.raises(ControlTokenError, match="question 2 of 2 holds"):
        solve(model, [FINE.question, bad.question], GREEDY)


def test_the_server_and_its_inspector(case):
    edit = {"kind": "splice", "question": case.question}
    requests = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": case.question}]},
        "/v1/completions": {"prompt": case.question},
        "/inspect/ask": {"question": case.question},
        "/inspect/sample": {"question": case.question, "count": 2},
        "/inspect/intervene": {"question": "3 pens", "edits": [edit]},
    }
    with TestClient(
        create_app({"mine": case.loaded}, ServeSettings()), base_url="http://localhost"
    ) as client:
        for path, body in requests.items():
            answer = client.post(path, json={"model": "mine", **body})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "special_token"), (path, error)
            assert f"the question holds {case.token!r}, a control token" in error["message"]


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="the extra lm-eval is not installed")
def test_the_harness(case):
    from lm_eval.api.instance import Instance

    from latentplan.evaluation.lm_harness.latentplan_lm import LatentplanLM

    request = Instance("generate_until", {}, (case.question, {"until": []}), 0, metadata=("mine", 0, 1))
    with pytest.raises(ControlTokenError, match="the question holds"):
        LatentplanLM(pretrained=str(case.run), device="cpu").generate_until([request], disable_tqdm=True)


def test_data_check_knows_our_own_tokens_without_a_model(tmp_path):
    rows = [FINE, Problem("3 ?", ("a <|end-latent|> b",), "7"), Problem("4 </s> [INST] ?", (), "7</s>")]
    result = runner.invoke(app, ["check", write(tmp_path / "a.jsonl", *rows)], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "a.jsonl:2: step 1 holds '<|end-latent|>', a control token" in result.output
    marks = f"{tmp_path}/a.jsonl:3 </s>, {tmp_path}/a.jsonl:3 [INST]"
    assert f"warning: 2 × looks like a control token: {marks}" in result.output
    assert "2 good rows, 1 broken" in result.output
