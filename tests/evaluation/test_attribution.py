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
from latentplan.problems.problem import Problem
from latentplan.rollout.interventions import completions_with, intact
from latentplan.rollout.solve import greedy_chains
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PROBLEMS = list(generate(PRESETS["clock"], split="train", count=40, seed=0))
OTHERS = [Problem("where is 1 ?", steps=[], answer="1")]

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
        "other_words": ("atp_latent", 2, 0),
        "cot": ("cot", 2, 0),
    }
    for name, (method, steps, seed) in shapes.items():
        torch.manual_seed(seed)
        config = SFTConfig(output_dir=str(folder), method=method, max_latent_steps=steps, use_cpu=True)
        problems = OTHERS if name == "other_words" else PROBLEMS
        system, tokenizer = initialise_system(ModelArguments(backbone_config=BACKBONE), config, problems)
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


@pytest.fixture
def said(runs, monkeypatch):
    """What each model says about latents of each, `[latents of][answered by]`; the first's own is right.

    Random models never say what is right, so that what the first says is taken for it.
    """
    models = [load_model(runs / name) for name in ("before", "after")]
    texts = [
        [
            completions_with(
                reader,
                PROBLEMS,
                greedy_chains(thinker, [problem.question for problem in PROBLEMS], batch_size=64),
                intact,
                seed=0,
                max_new_tokens=4,
                batch_size=64,
            )
            for reader in models
        ]
        for thinker in models
    ]
    order = greedy_chains(models[0], [problem.question for problem in PROBLEMS], batch_size=64).indices
    answers = dict(zip(order, texts[0][0], strict=True))
    problems = [replace(problem, answer=answers[place]) for place, problem in enumerate(PROBLEMS)]
    monkeypatch.setattr(
        "latentplan.evaluation.attribution.are_correct",
        lambda completions, of: [text == each.answer for text, each in zip(completions, of, strict=True)],
    )
    return models, problems, texts, order


def test_a_model_exchanged_with_itself_gains_nothing(said):
    (model, _), problems, _, _ = said
    solved = crossed_answers(model, model, problems, max_new_tokens=4, batch_size=16)
    assert solved.all()
    assert take_apart(solved).gain.estimate == 0


def test_each_corner_is_what_one_says_about_latents_of_the_other(said):
    models, problems, texts, order = said
    solved = crossed_answers(*models, problems, max_new_tokens=4, batch_size=16)
    for thinks in (0, 1):
        for answers in (0, 1):
            pairs = zip(texts[thinks][answers], texts[0][0], strict=True)
            assert solved[thinks, answers, order].tolist() == [one == other for one, other in pairs]
    assert solved[0, 0].all()
    assert not (solved[0, 1] == solved[1, 0]).all(), "or a mistaken order would not show"
    again = crossed_answers(*models, problems, max_new_tokens=4, batch_size=7)
    assert (solved == again).all()


def test_few_problems_are_no_certainty():
    solved = np.zeros((2, 2, 5), dtype=bool)
    solved[1] = True
    found = take_apart(solved)
    assert found.gain.estimate == found.from_latents.estimate == 1
    assert found.gain.low == pytest.approx(0.025 ** (1 / 5))
    assert found.from_answers.low < 0 < found.from_answers.high


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("longer", "num_slots is 4 in the one model and 6"),
        ("cot", "without latents"),
        ("other_words", "different tokens"),
    ],
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
    found = Attribution.load(runs / "after" / "attribution" / "before-minigsm-clock.json")
    assert (found.benchmark, found.num_problems) == ("minigsm:clock", 6)
    parts = found.parts
    assert parts.gain.estimate == pytest.approx(parts.from_latents.estimate + parts.from_answers.estimate)
