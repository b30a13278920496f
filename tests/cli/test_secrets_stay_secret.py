"""A token on the command line, in a recipe or in the environment: used for the hub, and written nowhere."""

from __future__ import annotations

import json
import os
import sys

import pytest
import yaml

from latentplan.cli import train as launch
from latentplan.cli.app import app
from latentplan.common.secrets import MASK
from latentplan.experiments.recipes import parse_recipe
from latentplan.problems.training_set import DataArguments
from latentplan.report.run_reader import ReportEntry, load_runs
from latentplan.training import run_training as runs
from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig
from latentplan.training.run_directory import MetricsFile, RunDirectory

VALUE = "hf_NOTASECRET"
SFT = (ModelArguments, DataArguments, SFTConfig)
RECIPE = {
    "method": "cot",
    "backbone_config": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
    "dataset_name": "minigsm",
    "dataset_size": 20,
    "curriculum_steps": 3,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 1,
    "use_cpu": True,
}
RECIPE["backbone_config"] |= {"num_attention_heads": 2}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.setenv("LATENTPLAN_HUB_TOKEN", "")


@pytest.fixture
def recipe(tmp_path):
    def write(**settings):
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump({**RECIPE, "output_dir": str(tmp_path / "runs/one"), **settings}))
        return str(file)

    return write


@pytest.fixture
def pushed(monkeypatch):
    """The tokens that runs are pushed with."""
    tokens = []
    monkeypatch.setattr(runs, "push_run", lambda path, repository, private, token: tokens.append(token))
    return tokens


@pytest.fixture
def latentplan(monkeypatch):
    """Runs a command as a process would, with its arguments in `sys.argv`; returns its status."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["latentplan", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            app()
        return ended.value.code

    return run


def holding(folder):
    """The files below a folder that hold the token."""
    return [file for file in folder.rglob("*") if file.is_file() and VALUE.encode() in file.read_bytes()]


class StopAt2(MetricsFile):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise KeyboardInterrupt


def test_a_run_its_checkpoints_and_its_report_hold_no_token(
    recipe, latentplan, pushed, tmp_path, monkeypatch, capfd
):
    """Interrupted, gone on with under the other form of the flag, reported and evaluated."""
    folder = tmp_path / "runs"
    push = ["--push_to_hub", "true", "--hub_model_id", "owner/name"]
    flags = ["sft", "--config", recipe(), *push]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "MetricsFile", StopAt2)
        assert latentplan(*flags, "--hub_token", VALUE) not in (0, None)
    assert (folder / "one/checkpoint-1/trainer_state.json").is_file()
    assert holding(folder) == []
    assert yaml.safe_load((folder / "one/config.yaml").read_text())["hub_token"] == MASK
    assert json.loads((folder / "one/run.json").read_text())["command"].endswith(f"--hub_token '{MASK}'")
    assert latentplan(*flags, f"--hub_token={VALUE}") == 0
    assert pushed == [VALUE]
    assert sys.argv[-1] == f"--hub_token={MASK}"  # what trackers record of a process
    assert json.loads((folder / "one/run.json").read_text())["command"].endswith(f"'--hub_token={MASK}'")
    assert [json.loads(line)["step"] for line in (folder / "one/metrics.jsonl").open()] == [1, 2, 3]
    assert latentplan("report", folder) == 0
    assert any(folder.rglob("events.out.tfevents*"))
    assert MASK.replace("<", "&lt;").replace(">", "&gt;") in (folder / "report.html").read_text()
    assert holding(tmp_path) == []
    printed = capfd.readouterr()
    assert VALUE not in printed.out + printed.err


@pytest.mark.parametrize("flags", [[], ["--hub_token", "hf_other"], ["--hub_token", MASK]], ids=str)
def test_a_run_goes_on_with_another_token_or_none(flags, recipe, latentplan, pushed, monkeypatch, tmp_path):
    push = ["--push_to_hub", "true", "--hub_model_id", "owner/name"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "MetricsFile", StopAt2)
        latentplan("sft", "--config", recipe(), *push, "--hub_token", VALUE)
    assert latentplan("sft", "--config", recipe(), *push, *flags) == 0
    assert pushed == [flags[1] if flags[1:] == ["hf_other"] else None]
    # What was recorded is a recipe: its mask is no token.
    again = parse_recipe(SFT, ["--config", str(tmp_path / "runs/one/config.yaml")])[2]
    assert again.hub_token is None


@pytest.mark.parametrize("saved", [MASK, "<HUB_TOKEN>"])
def test_a_masked_token_of_a_recipe_is_none_or_the_environments(saved, recipe, monkeypatch):
    """transformers masks even a token that is absent, so older configurations all hold one."""
    assert parse_recipe(SFT, ["--config", recipe(hub_token=saved)])[2].hub_token is None
    assert parse_recipe(SFT, ["--config", recipe(), "--hub_token", saved])[2].hub_token is None
    monkeypatch.setenv("LATENTPLAN_HUB_TOKEN", VALUE)
    assert parse_recipe(SFT, ["--config", recipe(hub_token=saved)])[2].hub_token == VALUE
    assert parse_recipe(SFT, ["--config", recipe(), "--hub_token", saved])[2].hub_token == VALUE


def test_flag_before_environment_before_recipe(recipe, monkeypatch):
    assert parse_recipe(SFT, ["--config", recipe(hub_token="hf_r")])[2].hub_token == "hf_r"
    monkeypatch.setenv("LATENTPLAN_HUB_TOKEN", "hf_e")
    assert parse_recipe(SFT, ["--config", recipe(hub_token="hf_r")])[2].hub_token == "hf_e"
    given = ["--config", recipe(hub_token="hf_r"), "--hub_token", "hf_f"]
    assert parse_recipe(SFT, given)[2].hub_token == "hf_f"


@pytest.mark.parametrize("kind", [SFTConfig, GRPOConfig])
def test_settings_show_no_token(kind, tmp_path):
    config = kind(output_dir=str(tmp_path), hub_token=VALUE, report_to="none")
    shown = [repr(config), str(config), config.to_json_string(), str(config.to_dict())]
    assert VALUE not in "".join([*shown, str(config.to_sanitized_dict())])
    assert config.to_dict()["hub_token"] == MASK
    assert kind(output_dir=str(tmp_path), report_to="none").to_dict()["hub_token"] is None


def test_mistakes_do_not_repeat_it(recipe, latentplan, capfd, tmp_path):
    assert latentplan("sft", "--config", recipe(), "--api_key", VALUE) == 2
    assert latentplan("sft", "--config", recipe(no_setting=1), "--hub_token", VALUE) == 2
    error = capfd.readouterr().err
    assert "no_setting" in error
    assert "--api_key" in error
    assert VALUE not in error
    run = RunDirectory(tmp_path / "a", {"hub_token": VALUE, "seed": 1}, f"latentplan sft --hub_token={VALUE}")
    run.update(status="running")
    assert holding(tmp_path / "a") == []


def test_on_several_devices_it_goes_through_the_environment(monkeypatch):
    """`accelerate launch` prints its whole command when a process fails."""
    commands = []
    monkeypatch.setattr(launch, "_become", commands.append)
    words = ["--accelerate_config", "ddp", "--num_processes", "2", "--hub_token", VALUE, "--seed", "1"]
    launch.on_several_devices("sft", words, ["hub_token"])
    assert commands[0][-3:] == ["sft", "--seed", "1"]
    assert VALUE not in str(commands)
    assert os.environ["LATENTPLAN_HUB_TOKEN"] == VALUE


@pytest.mark.parametrize("place", ["recipe", "--set"])
def test_a_comparison_writes_none_down_and_its_runs_find_it(place, recipe, latentplan, tmp_path):
    flags = [] if place == "recipe" else ["--set", f"hub_token={VALUE}"]
    file = recipe(hub_token=VALUE)
    del os.environ["LATENTPLAN_HUB_TOKEN"]
    output = tmp_path / "comparison"
    words = ["compare", file, "--output", output, "--plan_only", "--num_problems", "2", *flags]
    assert latentplan(*words) == 0
    assert (output / "compare.json").is_file()
    assert (output / "recipes/recipe.yaml").is_file()
    assert holding(output) == []
    assert os.environ["LATENTPLAN_HUB_TOKEN"] == VALUE
    command = ["--config", str(output / "recipes/recipe.yaml")]
    assert parse_recipe(SFT, command)[2].hub_token == VALUE


def test_reports_of_older_runs_mask_what_these_recorded(tmp_path, latentplan):
    run = tmp_path / "old"
    run.mkdir()
    (run / "config.yaml").write_text(f"method: cot\nhub_token: {VALUE}\n")
    record = {"method": "cot", "kind": "sft", "command": f"latentplan sft --hub_token {VALUE} --seed 1"}
    (run / "run.json").write_text(json.dumps(record))
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert load_runs([ReportEntry("old", "old", run)])[0].config["hub_token"] == MASK
    assert latentplan("report", tmp_path) == 0
    assert "--seed 1" in (tmp_path / "report.html").read_text()
    assert sorted(holding(tmp_path)) == [run / "config.yaml", run / "run.json"]
