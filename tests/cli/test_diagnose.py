"""`latentplan diagnose` as it is called: files, exit statuses, the run's own problems."""

import json

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from latentplan.cli.diagnose import diagnose
from latentplan.evaluation.diagnosis.findings import Diagnosis
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.sources import own_preset
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}

runner = CliRunner()
app = typer.Typer()
app.command()(diagnose)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Random models of two methods, each in a run on minigsm's clock world."""
    folder = tmp_path_factory.mktemp("runs")
    problems = list(generate(PRESETS["clock"], split="train", count=400, seed=0))
    for method in ("pause", "cot"):
        torch.manual_seed(0)
        config = SFTConfig(output_dir=str(folder), method=method, max_latent_steps=2, use_cpu=True)
        system, tokenizer = initialise_system(ModelArguments(backbone_config=BACKBONE), config, problems)
        system.save_pretrained(folder / method / "model", tokenizer)
        settings = {"dataset_name": ["minigsm"], "dataset_config": "clock"}
        (folder / method / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def invoke(*arguments):
    words = [*map(str, arguments), "--max_new_tokens", "4", "--device", "cpu"]
    return runner.invoke(app, words, env={"COLUMNS": "200"})


def test_own_problems_files_and_status(runs):
    result = invoke(runs / "pause", "--num_problems", 32)
    assert result.exit_code == 3, result.output  # pauses do not depend on the question
    stem = runs / "pause" / "diagnosis" / "minigsm-clock"
    assert f"all figures in {stem}.json and {stem}.md" in result.output
    assert "✗ failed" in result.output
    found = Diagnosis.load(f"{stem}.json")
    assert (found.benchmark, found.num_problems, found.method) == ("minigsm:clock", 32, "pause")
    assert "posterior_collapse" in found.failed
    assert found.finding("reconstruction").verdict == "pause has no step decoder"
    assert stem.with_name("minigsm-clock.md").read_text().startswith("# pause on minigsm:clock: 32 problems")
    assert sorted(path.name for path in stem.parent.iterdir()) == ["minigsm-clock.json", "minigsm-clock.md"]


@pytest.mark.parametrize(("names", "status"), [("none", 0), ("reconstruction, faithfulness", 0)])
def test_only_what_is_watched_makes_the_status(runs, tmp_path, names, status):
    result = invoke(runs / "pause", "--num_problems", 4, "--fail_on", names, "--output", tmp_path / "out")
    assert result.exit_code == status, result.output


def test_a_file_of_one_s_own_and_figures(runs, tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [problem.to_json() for problem in generate(PRESETS["clock"], split="test", count=3, seed=3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--benchmark", file, "--output", tmp_path, "--figures"]
    result = invoke(runs / "cot" / "model", *options)
    assert result.exit_code in (0, 3), result.output
    assert "greedy plan: the labelled one" in result.output
    assert Diagnosis.load(tmp_path / "mine.json").num_problems == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fail_on", "silence"], "--fail_on: there is no finding silence; there are silent_failure,"),
        (["--benchmark", "minigsm:clok"], "'minigsm:clok' is no minigsm preset"),
    ],
)
def test_what_is_wrong_is_said(runs, options, message):
    result = invoke(runs / "cot", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_a_model_that_is_not_there_is_said_first(tmp_path):
    result = invoke(tmp_path / "nothing")
    assert result.exit_code == 2
    assert "there is no such folder" in result.output.replace("\n", " ")
    (tmp_path / "run.json").write_text("{}")
    assert "the run has not ended" in invoke(tmp_path).output.replace("\n", " ")


def test_without_a_run_the_problems_have_to_be_named(runs, tmp_path):
    assert own_preset(runs / "cot") == "minigsm:clock"
    (tmp_path / "config.yaml").write_text("dataset_name: [gsm8k]\n")
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="name a --benchmark"):
            own_preset(folder)
