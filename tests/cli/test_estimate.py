"""`latentplan estimate` from the command line, and the benchmark that measures what it estimates."""

import json
import runpy
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.cli.estimate import read_plan
from latentplan.training.configs import GRPOConfig
from latentplan.training.memory.backbone_shapes import backbone_shape

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "full_shape.py"
SHAPE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    settings = {
        "method": "atp_latent",
        "backbone_config": SHAPE,
        "max_latent_steps": 1,
        "latents_per_step": 1,
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_table_says_what_was_assumed(recipe):
    done = invoke("estimate", "--config", recipe, "--question_tokens", 20, "--per_device_train_batch_size", 2)
    assert done.exit_code == 0, done.output
    for words in ("activations", "optimizer", "trained:", "questions of 20 tokens", "2 rows at a time"):
        assert words in done.output


def test_json_holds_the_same_and_several_devices_share(recipe):
    alone, shared = (
        json.loads(invoke("estimate", "--config", recipe, "--steps", 1, "--json", *more).stdout)
        for more in ((), ("--devices", 4, "--sharding", "fsdp"))
    )
    assert alone["devices"] == 1
    assert shared["weights"] == alone["weights"]
    assert shared["training"]["optimizer"] == pytest.approx(alone["training"]["optimizer"] / 4, abs=1e-3)
    assert alone["weights"]["trained"] == sum(alone["weights"]["parameters"].values())


def test_mistakes_are_told_in_one_line(recipe):
    for arguments, words in (
        (["--sharding", "zero9"], "sharding must be one of"),
        (["--methd", "cot"], "--methd"),
        (["--method", "cott"], "method must be one of"),
    ):
        failed = invoke("estimate", "--config", recipe, *arguments)
        assert failed.exit_code == 2
        assert words in failed.output


def test_an_rl_recipe_takes_its_model_from_the_recipe_that_trains_it():
    plan = read_plan(["--config", "llama-3.2-1b/atp_latent_rl"])
    assert isinstance(plan.run, GRPOConfig)
    assert (plan.built_as.method, plan.built_as.max_latent_steps) == ("atp_latent", 10)
    expected = backbone_shape("meta-llama/Llama-3.2-1B-Instruct")
    assert plan.backbone.hidden_size == expected.hidden_size == 2048


def test_an_rl_run_from_nowhere_is_refused(tmp_path):
    flags = ["--config", "llama-3.2-1b/atp_latent_rl", "--model_name_or_path", tmp_path / "none"]
    failed = invoke("estimate", *flags)
    assert "neither a trained model nor the output_dir of a recipe" in failed.output


def test_the_benchmark_at_full_shape_runs_on_a_cpu(tmp_path, monkeypatch, capsys):
    output = tmp_path / "bench"
    arguments = ["--tiny", "--output", str(output), "--sft_steps", "3", "--rl_steps", "16"]
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["sft"]["seconds_a_step"] > 0
    assert summary["grpo"]["steps_timed"] == 8
    assert summary["grpo"]["estimated_gib"] > 1
    assert "estimated" in capsys.readouterr().out.splitlines()[-3]
