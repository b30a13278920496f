"""`latentplan select` as it is called: files, the plot, what it refuses."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from latentplan.cli.load_or_exit import names_of
from latentplan.cli.select import select
from latentplan.evaluation.results import SelectionResult
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}

runner = CliRunner()
app = typer.Typer()
app.command()(select)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Random models of two methods, each in a run."""
    folder = tmp_path_factory.mktemp("runs")
    problems = list(generate(PRESETS["clock"], split="train", count=400, seed=0))
    for method in ("atp_latent", "cot"):
        torch.manual_seed(0)
        config = SFTConfig(output_dir=str(folder), method=method, max_latent_steps=2, use_cpu=True)
        system, tokenizer = initialise_system(ModelArguments(backbone_config=BACKBONE), config, problems)
        system.save_pretrained(folder / method / "model", tokenizer)
    return folder


def invoke(*arguments):
    words = [*map(str, arguments), "--max_new_tokens", "4", "--device", "cpu"]
    return runner.invoke(app, words, env={"COLUMNS": "200"})


def test_two_models_files_and_plot(runs):
    options = ["--benchmark", "minigsm:clock", "--num_problems", 4, "--num_generations", 4]
    result = invoke(runs / "atp_latent", runs / "cot" / "model", *options)
    assert result.exit_code == 0, result.output
    stem = "minigsm-clock-t1-l1-n4-seed0"
    folder = runs / "atp_latent" / "selection"
    endings = (".json", ".md", ".png", ".svg")
    assert sorted(path.name for path in folder.iterdir()) == [f"{stem}{ending}" for ending in endings]
    assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    found = SelectionResult.load(folder / f"{stem}.json")
    assert [model.name for model in found.models] == ["atp_latent", "cot"]
    assert (found.reference, found.num_generations, found.num_problems) == ("cot", 4, 4)
    assert found.models[0].equal_tokens
    assert not found.models[1].equal_tokens
    assert "majority vote" in result.output


def test_without_a_model_that_writes_steps_nothing_stands_beside(runs, tmp_path):
    options = ["--benchmark", "minigsm:clock", "--num_problems", 2, "--num_generations", 2]
    result = invoke(runs / "atp_latent", *options, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "nothing to stand beside" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "minigsm:clok"], "is no minigsm preset"),
        (["--benchmark", "minigsm:clock", "--temperature", 0], "set --temperature above 0"),
    ],
)
def test_what_is_wrong_is_said(runs, options, message):
    result = invoke(runs / "cot", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_names_tell_runs_apart():
    assert names_of([Path("a/sft"), Path("b/sft/model")]) == ["a/sft", "b/sft"]
    assert names_of([Path("a/sft/model"), Path("b/rl")]) == ["sft", "rl"]
    with pytest.raises(ValueError, match="the same model is given twice"):
        names_of([Path("a/sft"), Path("a/sft/model")])
