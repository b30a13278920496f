from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from latentplan.cli.attribute import attribute
from latentplan.evaluation.attribution import Attribution, crossed_answers, take_apart
from latentplan.modeling.loading import load_model
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.rollout.sampling import Sampling
from latentplan.rollout.solve import solve
from latentplan.training.arguments import ModelArguments, SFTConfig
from latentplan.training.initialise import initialise_system

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PROBLEMS = list(generate(PRESETS["clock"], split="train", count=40, seed=0))

runner = CliRunner()
app = typer.Typer()
app.command()(attribute)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Random models: two of one shape, one with more slots, one without latents."""
    folder = tmp_path_factory.mktemp("runs")
    shapes = {
        "before": ("atp_latent", 2, 0),
        "after": ("atp_latent", 2, 1),
        "longer": ("atp_latent", 3, 0),
        "cot": ("cot", 2, 0),
    }
    for name, (method, steps, seed) in shapes.items():
        torch.manual_seed(seed)
        config = SFTConfig(output_dir=str(folder), method=method, max_latent_steps=steps, use_cpu=True)
        system, tokenizer = initialise_system(ModelArguments(backbone_config=BACKBONE), config, PROBLEMS)
        system.save_pretrained(folder / name / "model", tokenizer)
    return folder


def test_a_gain_by_hand():
    solved = np.zeros((2, 2, 8), dtype=bool)
    solved[0, 0, :2] = True  # 2 of 8 before
    solved[1, 0, :3] = True  # the better latents alone solve one more
    solved[0, 1, :4] = True  # the better answers alone two more
    solved[1, 1, :7] = True  # both together five more
    found = take_apart(solved)
    assert found.accuracy_before.estimate == 2 / 8
    assert found.accuracy_latents.estimate == 3 / 8
    assert found.accuracy_answers.estimate == 4 / 8
    assert found.accuracy_after.estimate == 7 / 8
    assert found.gain.estimate == pytest.approx(5 / 8)
    assert found.from_latents.estimate == pytest.approx((1 + 3) / 2 / 8)
    assert found.from_answers.estimate == pytest.approx((2 + 4) / 2 / 8)
    assert found.gain.low < 5 / 8 < found.gain.high


def test_a_model_exchanged_with_itself_gains_nothing(runs):
    model = load_model(runs / "before")
    solved = crossed_answers(model, model, PROBLEMS, max_new_tokens=4, batch_size=16)
    assert (solved == solved[0, 0]).all()
    assert take_apart(solved).gain.estimate == 0


def test_the_corners_are_what_each_model_says_by_itself(runs, monkeypatch):
    """What random models say is never right, so what the first says is taken for right here."""
    models = [load_model(runs / name) for name in ("before", "after")]
    questions = [problem.question for problem in PROBLEMS]
    said = [
        [one.completion for (one,) in solve(model, questions, Sampling.greedy(4), batch_size=16)]
        for model in models
    ]
    assert said[0] != said[1]
    problems = [replace(problem, answer=text) for problem, text in zip(PROBLEMS, said[0], strict=True)]
    monkeypatch.setattr(
        "latentplan.evaluation.attribution.are_correct",
        lambda completions, references: [
            a.strip() == b for a, b in zip(completions, references, strict=True)
        ],
    )
    solved = crossed_answers(*models, problems, max_new_tokens=4, batch_size=16)
    assert solved[0, 0].all()
    assert solved[1, 1].tolist() == [a == b for a, b in zip(*said, strict=True)]
    again = crossed_answers(*models, problems, max_new_tokens=4, batch_size=7)
    assert (solved == again).all()


@pytest.mark.parametrize(
    ("other", "message"), [("longer", "num_slots is 4 in the one model and 6"), ("cot", "without latents")]
)
def test_models_that_do_not_fit_are_refused(runs, other, message):
    result = invoke(runs / "before", runs / other)
    assert result.exit_code == 2
    assert message in result.output


def invoke(*arguments):
    words = [*map(str, arguments), "--benchmark", "minigsm:clock", "--num_problems", "6"]
    return runner.invoke(app, [*words, "--max_new_tokens", "4", "--device", "cpu"], env={"COLUMNS": "200"})


def test_the_command_prints_and_writes(runs):
    result = invoke(runs / "before", runs / "after" / "model")
    assert result.exit_code == 0, result.output
    assert "of it the latents'" in result.output
    found = Attribution.load(runs / "after" / "attribution" / "minigsm-clock.json")
    assert (found.benchmark, found.num_problems) == ("minigsm:clock", 6)
    parts = found.from_latents.estimate + found.from_answers.estimate
    assert found.gain.estimate == pytest.approx(parts)
