from __future__ import annotations

import json
import shutil

import pytest
import torch
import typer
from typer.testing import CliRunner

from latentplan.cli.ask import ask
from latentplan.cli.evaluate import evaluate
from latentplan.evaluation.results import EvaluationResult
from latentplan.problems.decontamination import TrainedQuestions
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
QUESTION = "the dial starts at 7 . it moves on by 3 . where is it ?"

runner = CliRunner()
app = typer.Typer()
app.command()(evaluate)
app.command()(ask)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random models of two methods, each in the `model` folder of a run."""
    folder = tmp_path_factory.mktemp("runs")
    problems = list(generate(PRESETS["clock"], split="train", count=400, seed=0))
    for method in ("atp_latent", "cot"):
        torch.manual_seed(0)
        config = SFTConfig(output_dir=str(folder), method=method, max_latent_steps=2, use_cpu=True)
        system, tokenizer = initialise_system(ModelArguments(backbone_config=BACKBONE), config, problems)
        system.save_pretrained(folder / method / "model", tokenizer)
    return folder


@pytest.fixture
def run(models, tmp_path):
    return shutil.copytree(models / "atp_latent", tmp_path / "atp_latent")


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [problem.to_json() for problem in generate(PRESETS["clock"], split="test", count=5, seed=3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def invoke(*arguments):
    # A wide terminal keeps messages on one line.
    return runner.invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_several_benchmarks(run, mine):
    result = invoke(
        "evaluate",
        run,
        "--benchmark",
        "minigsm:clock",
        "--benchmark",
        mine,
        "--num_problems",
        3,
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    assert "accuracy with latents" in result.output
    assert f"{run}/evaluation/mine.json, predictions in {run}/evaluation/mine.jsonl" in result.output
    files = sorted(path.name for path in (run / "evaluation").iterdir())
    assert files == ["mine.json", "mine.jsonl", "minigsm-clock.json", "minigsm-clock.jsonl"]
    saved = EvaluationResult.load(run / "evaluation" / "minigsm-clock.json")
    assert (saved.benchmark, saved.num_problems, saved.method) == ("minigsm:clock", 3, "atp_latent")
    assert saved.model == str(run / "model")
    assert saved.sampling.temperature == saved.sampling.latent_temperature == 0
    assert len((run / "evaluation" / "mine.jsonl").read_text().splitlines()) == 3


def test_sampled_results_stand_beside_greedy_ones(run, mine):
    greedy = invoke("evaluate", run / "model", "--benchmark", mine, "--max_new_tokens", 4)
    options = ["--temperature", 0.7, "--latent_temperature", 0.5, "--num_generations", 2, "--seed", 3]
    sampled = invoke("evaluate", run / "model", "--benchmark", mine, "--max_new_tokens", 4, *options)
    assert greedy.exit_code == sampled.exit_code == 0, greedy.output + sampled.output
    assert {path.stem for path in (run / "evaluation").iterdir()} == {"mine", "mine-t0.7-l0.5-n2-seed3"}
    saved = EvaluationResult.load(run / "evaluation" / "mine-t0.7-l0.5-n2-seed3.json")
    assert (saved.sampling.temperature, saved.sampling.latent_temperature) == (0.7, 0.5)
    assert (saved.sampling.max_new_tokens, saved.num_generations, saved.seed) == (4, 2, 3)
    assert list(saved.pass_at_k) == ["1", "2"]
    assert "pass@2" in sampled.output


def test_latent_temperature_follows_temperature(run, mine, tmp_path):
    result = invoke(
        "evaluate",
        run,
        "--benchmark",
        mine,
        "--temperature",
        1,
        "--output",
        tmp_path / "out",
        "--no_latent_use",
    )
    assert result.exit_code == 0, result.output
    saved = EvaluationResult.load(tmp_path / "out" / "mine-t1-l1-n1-seed0.json")
    assert saved.latent_use is None
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--benchmark", "minigsm:clok"],
            "'minigsm:clok' is no minigsm preset; write minigsm:NAME with clock",
        ),
        (["--benchmark", "nothing.jsonl"], "is neither a file, nor NAME or NAME=FILE"),
        (["--benchmark", "minigsm:clock", "--benchmark", "minigsm:clock"], "two benchmarks are called"),
        (["--benchmark", "minigsm:clock", "--num_generations", "2"], "set --temperature above 0"),
    ],
)
def test_wrong_options(run, options, message):
    result = invoke("evaluate", run, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (run / "evaluation").exists()


def test_empty_file(run, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    result = invoke("evaluate", run, "--benchmark", tmp_path / "empty.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("command", [["evaluate", "--benchmark", "minigsm:clock"], ["ask", QUESTION]])
def test_no_model(command, tmp_path):
    result = invoke(command[0], tmp_path, *command[1:])
    assert result.exit_code == 2
    assert f"{tmp_path} holds no latentplan model" in result.stderr


def test_unknown_device(models):
    result = invoke("ask", models / "cot", QUESTION, "--device", "abacus")
    assert result.exit_code == 2
    assert "abacus" in result.stderr


def test_ask_latent_model(models):
    result = invoke("ask", models / "atp_latent", QUESTION, "--max_new_tokens", 5)
    assert result.exit_code == 0, result.output
    assert "plan, decoded from the latents" in result.output
    assert "latent + " in result.output
    assert result.output == invoke("ask", models / "atp_latent", QUESTION, "--max_new_tokens", 5).output


def test_ask_several_times(models):
    result = invoke(
        "ask", models / "cot", QUESTION, "--num_generations", 2, "--temperature", 1, "--max_new_tokens", 6
    )
    assert result.exit_code == 0, result.output
    assert "2 of 2" in result.output
    assert "plan, as written" in result.output
    assert result.output.count("tokens  0 latent + ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([" "], "the question is empty"),
        ([QUESTION, "--num_generations", "3"], "3 greedy trajectories of a question are all the same"),
    ],
)
def test_ask_in_vain(models, arguments, message):
    result = invoke("ask", models / "cot", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_questions_that_the_model_was_trained_on_are_counted(run, mine):
    problems = list(generate(PRESETS["clock"], split="test", count=5, seed=3))
    TrainedQuestions.of(problems[1:3]).save(run)
    result = invoke("evaluate", run / "model", "--benchmark", mine, "--no_latent_use", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "warning: mine: the model was trained on 2 of these 5 questions" in result.output
    assert EvaluationResult.load(run / "evaluation" / "mine.json").trained_on == 2


def test_a_benchmark_with_other_columns(run, mine, tmp_path):
    rows = [json.loads(line) for line in mine.read_text().splitlines()]
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(
        "".join(json.dumps({"ask": row["question"], "say": row["answer"]}) + "\n" for row in rows)
    )
    arguments = ["evaluate", run, "--benchmark", renamed, "--no_latent_use", "--device", "cpu"]
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "the columns ask, say tell no known format" in refused.output
    result = invoke(*arguments, "--dataset_columns", "{question: ask, answer: say}")
    assert result.exit_code == 0, result.output
    evaluated = EvaluationResult.load(run / "evaluation" / "renamed.json")
    assert (evaluated.num_problems, evaluated.trained_on) == (5, None)
