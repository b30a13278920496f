import json
import math

import pytest

from latentplan.modeling.loading import load_model
from latentplan.training.configs import ModelArguments
from latentplan.training.sft_trainer import SFTTrainer

DECODER_ALONE = {"backbone": 0, "latent_head": 0, "stop_head": 0}


def moved(before, after):
    """The largest change of each weight."""
    before, after = dict(before.named_parameters()), dict(after.named_parameters())
    return {name: float((after[name] - value).detach().abs().max()) for name, value in before.items()}


def test_parts_learn_at_their_own_rates(run_grpo, trained, tmp_path):
    start = trained("atp_latent")
    run = run_grpo(
        tmp_path / "run", start, max_steps=6, learning_rate_factors={"latent_head": 0, "stop_head": 2.0}
    )
    changes = moved(load_model(start).reasoner, load_model(run.path).reasoner)
    assert all(change == 0 for name, change in changes.items() if name.startswith("latent_head"))
    backbone = max(change for name, change in changes.items() if name.startswith("backbone"))
    stop = max(change for name, change in changes.items() if name.startswith("stop_head"))
    assert 0 < backbone < stop, "Adam's first steps are as long as the learning rate"


@pytest.fixture
def refresh(run_sft, trained):
    """Trains the step decoder on the latents of a policy that stays as it is."""

    def run(folder, factors=None, **settings):
        start = ModelArguments(model_name_or_path=str(trained("atp_latent")))
        factors = DECODER_ALONE if factors is None else factors
        return run_sft(folder, start, method="atp_latent", learning_rate_factors=factors, **settings)

    return run


def test_the_decoder_is_refreshed_while_the_policy_stays(refresh, trained, tmp_path):
    run = refresh(tmp_path / "run", objectives={"step_decoder": 1.0}, curriculum_steps=[15], logging_steps=1)
    start, end = load_model(trained("atp_latent")), load_model(run.path)
    assert max(moved(start.reasoner, end.reasoner).values()) == 0
    assert max(moved(start.step_decoder, end.step_decoder).values()) > 0
    losses = [json.loads(line).get("loss") for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_what_is_not_trained_has_no_gradient_and_no_dropout(refresh, monkeypatch, tmp_path):
    seen = []

    def watch(trainer, *args, **kwargs):
        loss = original(trainer, *args, **kwargs)
        system = trainer.model
        loss.backward()
        seen.append([part.training for part in (system.reasoner, system.step_decoder)])
        assert all(each.grad is None for each in system.reasoner.parameters())
        assert any(each.grad is not None for each in system.step_decoder.parameters())
        system.zero_grad()
        return original(trainer, *args, **kwargs)

    original = SFTTrainer.compute_loss
    monkeypatch.setattr(SFTTrainer, "compute_loss", watch)
    refresh(tmp_path / "run", objectives={"step_decoder": 1.0}, curriculum_steps=[2])
    assert seen
    assert all(modes == [False, True] for modes in seen)


def test_a_frozen_policy_costs_its_forward_pass_alone(refresh, tmp_path):
    flops = []
    for factors in ({}, DECODER_ALONE):
        run = refresh(tmp_path / str(len(factors)), factors, curriculum_steps=[2], logging_steps=1)
        flops.append(json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])["flops"])
    assert flops[1] < 0.8 * flops[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"learning_rate_factors": {"heads": 2}},
            "among backbone, latent_head, stop_head, step_decoder",
        ),
        ({"learning_rate_factors": {"stop_head": -1}}, "stop_head needs a number from 0 on, got -1"),
        ({"learning_rate_factors": {"stop_head": math.nan}}, "stop_head needs a number from 0 on, got nan"),
        ({"learning_rate_factors": {"step_decoder": 1.0}}, "step_decoder is not trained in this run"),
        ({"learning_rate_factors": DECODER_ALONE}, "nothing to train"),
        ({"learning_rate_factors": {"backbone": 0}, "latent_gradient": "none"}, "depends on nothing that is"),
    ],
)
def test_factors_that_make_no_sense_are_refused(settings, message, run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_grpo(tmp_path / "run", trained("atp_latent"), **settings)


def test_a_part_that_is_frozen_anyway_may_have_the_factor_0(run_grpo, trained, tmp_path):
    factors = {"step_decoder": 0, "latent_head": 0}
    assert run_grpo(
        tmp_path / "run", trained("atp_latent"), max_steps=2, learning_rate_factors=factors
    ).finished


def test_divergence_and_ratios_are_logged_by_part(run_grpo, trained, tmp_path):
    run = run_grpo(tmp_path / "run", trained("atp_latent"), max_steps=4, beta=0.1, num_iterations=2, seed=5)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "kl" in row]
    for row in rows:
        parts = [row[f"kl/{part}"] for part in ("answers", "latents", "stops")]
        assert row["kl"] == pytest.approx(sum(parts), rel=1e-4, abs=1e-7)
        assert all(part >= -1e-6 for part in parts)
    assert rows[-1]["kl/latents"] > rows[0]["kl/latents"]
    for kind in ("latents", "answers"):
        first, second = (row[f"log_ratio/{kind}"] for row in rows[:2])  # passes over one rollout
        assert first < 1e-4 < second
