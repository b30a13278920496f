from __future__ import annotations

import csv
import json
import shutil
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
import typer
from typer.testing import CliRunner

from latentplan.cli.visualize import visualize
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.report.figures import embed
from latentplan.report.page import build_report, find_entries
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
runner = CliRunner()
app = typer.Typer()
app.command()(visualize)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Random models of several methods in run directories; `atp_latent_rl` has logged rewards."""
    folder = tmp_path_factory.mktemp("runs")
    problems = list(generate(PRESETS["clock"], split="train", count=400, seed=0))
    for name, method in (
        ("atp_latent_sft", "atp_latent"),
        ("atp_latent_rl", "atp_latent"),
        ("coconut", "coconut"),
        ("pause", "pause"),
        ("cot", "cot"),
    ):
        torch.manual_seed(1 + len(name))
        config = SFTConfig(output_dir=str(folder), method=method, max_latent_steps=3, use_cpu=True)
        system, tokenizer = initialise_system(ModelArguments(backbone_config=BACKBONE), config, problems)
        system.save_pretrained(folder / name / "model", tokenizer)
        (folder / name / "run.json").write_text(json.dumps({"name": name}))
    rows = [
        {"step": step, "reward": step / 10, "reward_std": 0.2, "rewards/accuracy/mean": step / 10}
        for step in range(1, 6)
    ]
    (folder / "atp_latent_rl" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def invoke(*arguments):
    common = ["--benchmark", "minigsm:clock", "--num_problems", 12, "--max_new_tokens", 4, "--device", "cpu"]
    return runner.invoke(app, [str(argument) for argument in (*arguments, *common)], env={"COLUMNS": "200"})


def table_of(file):
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_before_and_after_rl(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    runs = tmp_path / "runs"
    result = invoke(runs / "atp_latent_sft", runs / "atp_latent_rl" / "model", "--fit", "first")
    assert result.exit_code == 0, result.output
    folder = runs / "atp_latent_rl" / "pictures"
    names = ["latents_pca", "latents_tsne", "stops", "sigma", "plans", "rewards"]
    listed = json.loads((folder / "pictures.json").read_text())
    assert [picture["name"] for picture in listed["pictures"]] == names
    assert listed["models"] == ["ATP-Latent SFT", "ATP-Latent RL"]
    assert (listed["benchmark"], listed["num_problems"], listed["left_out"]) == ("minigsm:clock", 12, [])
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert str(folder / f"{name}.png") in result.output
    latents = table_of(folder / "latents.csv")
    assert {row["model"] for row in latents} == set(listed["models"])
    assert {"result", "operator", "answer", "sigma", "pca_x", "tsne_y"} <= set(latents[0])
    plans = json.loads((folder / "plans.json").read_text())
    assert len(plans["ATP-Latent RL"]) == 12
    rewards = table_of(folder / "rewards.csv")
    assert [row["value"] for row in rewards if row["metric"] == "reward"] == [
        "0.1",
        "0.2",
        "0.3",
        "0.4",
        "0.5",
    ]
    page = build_report(runs, find_entries(runs)).read_text()
    assert page.count("data:image/svg+xml;base64,") == len(names)
    assert "ATP-Latent SFT, ATP-Latent RL on 12 problems of minigsm:clock" in page


def test_what_a_model_does_not_have_is_left_out(runs, tmp_path):
    result = invoke(runs / "cot", runs / "coconut", "--projection", "pca", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for reason in (
        "left out: CoT: cot has no latents",
        "left out: stops: no model has a stop head",
        "left out: sigma: the latents of these models are points",
        "left out: plans: no model has a step decoder",
        "left out: rewards: no model is in a run of RL",
    ):
        assert reason in result.output
    assert sorted(file.name for file in (tmp_path / "out").glob("*.png")) == ["latents_pca.png"]
    rows = table_of(tmp_path / "out" / "latents.csv")
    assert {row["sigma"] for row in rows} == {""}
    listed = json.loads((tmp_path / "out" / "pictures.json").read_text())
    assert "stops" in [gone["name"] for gone in listed["left_out"]]


def test_latents_that_are_all_the_same(runs, tmp_path):
    result = invoke(runs / "pause", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "latents of Pause: its latents are all the same vector" in result.output
    assert not list(tmp_path.glob("*.png"))


def test_models_of_different_width_share_no_plane(runs, tmp_path):
    torch.manual_seed(0)
    problems = list(generate(PRESETS["clock"], split="train", count=400, seed=0))
    config = SFTConfig(output_dir=str(tmp_path), method="coconut", max_latent_steps=3, use_cpu=True)
    wide = ModelArguments(backbone_config={**BACKBONE, "hidden_size": 32})
    system, tokenizer = initialise_system(wide, config, problems)
    system.save_pretrained(tmp_path / "wide", tokenizer)
    result = invoke(runs / "coconut", tmp_path / "wide", "--projection", "pca", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "latents of Wide: a step has 64 numbers, of Coconut 32" in result.output


def test_a_folder_that_cannot_be_written(runs, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke(runs / "coconut", "--projection", "pca", "--output", tmp_path / "file")
    assert result.exit_code == 2
    assert "the pictures cannot be written there" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cot"], "CoT: cot has no latents: there is nothing to draw"),
        (["coconut", "--projection", "mds"], "--projection mds: choose from pca, tsne, umap"),
        (["coconut", "--fit", "last"], "--fit last: choose from both, first"),
        (["coconut", "coconut/model"], "a model is named twice"),
        (["nothing"], "holds no latentplan model"),
    ],
)
def test_bad_input_is_one_line(runs, arguments, message):
    paths = [runs / arguments[0], *(runs / each if "/" in each else each for each in arguments[1:])]
    result = invoke(*paths)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("module", "advice"),
    [("umap", "umap-learn"), ("sklearn", "'latentplan[plot]'"), ("matplotlib", "'latentplan[plot]'")],
)
def test_what_is_missing_is_named_before_anything_is_computed(runs, monkeypatch, module, advice):
    monkeypatch.setitem(sys.modules, module, None)
    result = invoke(runs / "nothing", "--projection", "umap" if module == "umap" else "pca")
    assert result.exit_code == 2
    assert f"pip install {advice}" in result.output


@pytest.fixture
def pictured(tmp_path):
    run = tmp_path / "run"
    (run / "pictures").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "pictures" / "a.svg").write_text("<svg/>")
    (tmp_path / "secret.svg").write_text("<svg>secret</svg>")
    return run


def write_list(run, *files):
    pictures = [{"name": "x", "caption": f"what {file} shows", "svg": file} for file in files]
    (run / "pictures" / "pictures.json").write_text(json.dumps({"pictures": pictures, "models": ["X"]}))


def test_a_report_shows_only_files_of_the_folder(pictured):
    write_list(pictured, "a.svg", "../../secret.svg", "gone.svg")
    page = build_report(pictured, find_entries(pictured)).read_text()
    assert page.count("data:image/svg+xml") == 1
    assert "what a.svg shows" in page
    assert "pictures/gone.svg of" in page


def test_a_report_names_pictures_that_are_too_large(pictured, monkeypatch):
    monkeypatch.setattr(embed, "MAX_TOTAL", 8)
    (pictured / "pictures" / "b.svg").write_text("<svg>b</svg>")
    write_list(pictured, "b.svg", "a.svg")
    page = build_report(pictured, find_entries(pictured)).read_text()
    assert "b.svg: too large for this page" in page
    assert "what a.svg shows" in page


@pytest.mark.parametrize("text", ["{", "[]", '{"pictures": 3}', '{"pictures": [1, {}]}'])
def test_a_report_survives_a_broken_list(pictured, text):
    (pictured / "pictures" / "pictures.json").write_text(text)
    assert "<h2" in build_report(pictured, find_entries(pictured)).read_text()
