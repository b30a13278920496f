"""What ratios compare with: the policy before the first update, by the same pass as after it."""

import json

import pytest
import torch

from latentplan.rewards import RewardSet
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.latent_gradients import LogProbs

NAMES = ("latents", "answers")
DIFFERENCE = "sampling/sampling_logp_difference"


def letters(prompts, completions, **columns):
    return [float(len(text) % 5) for text in completions]


SETTINGS = {
    "score function": {"latent_gradient": "score_function"},
    "pathwise": {"latent_gradient": "pathwise", "answers_per_latent": 2},
    "drawn plans": {"latent_gradient": "pathwise", "plan_temperature": 1.0},
    "likelihood beside": {"latent_gradient": "pathwise", "likelihood_weight": 1.0},
    "checkpointed": {"latent_gradient": "score_function", "gradient_checkpointing": True},
}
SEVERAL = {"per_device_train_batch_size": 8, "steps_per_generation": 2, "num_iterations": 2}


@pytest.fixture
def train(run_grpo, trained, tmp_path):
    """The log lines of a run, one an optimisation step."""

    def run(**settings):
        shared = {"reward_funcs": [f"{__name__}:letters"], "save_strategy": "no", "signal_problems": 0}
        found = run_grpo(tmp_path / "run", trained("atp_latent"), **{**shared, **settings})
        rows = [json.loads(line) for line in (found.path / "metrics.jsonl").read_text().splitlines()]
        return [row for row in rows if "loss" in row]

    return run


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_ratios_are_1_in_bfloat16_until_the_policy_moves(settings, train):
    """4 updates a rollout, at a learning rate of 0: the ratios of all of them are 1."""
    rows = train(bf16=True, learning_rate=0.0, max_steps=4, **SEVERAL, **settings)
    assert len(rows) == 4
    for row in rows:
        for name in [*NAMES, *(["plans"] if "plan_temperature" in settings else [])]:
            assert row[f"log_ratio/{name}"] < 1e-5, name
            assert row[f"clip_ratio/{name}"] == 0
        # What the rollout recorded is something else.
        assert row[f"{DIFFERENCE}/max"] > 1e-3
    if settings["latent_gradient"] == "score_function":
        assert rows[0][f"{DIFFERENCE}/latents/mean"] > 1e-2


def test_the_first_update_is_at_ratio_1_and_later_ones_are_not(train):
    rows = train(bf16=True, learning_rate=1e-3, max_steps=4, **SEVERAL)
    assert rows[0]["log_ratio/answers"] < 1e-5
    assert all(row["log_ratio/answers"] > 1e-3 for row in rows[1:])


@pytest.fixture
def make_trainer(make_system, as_loaded, grpo_config, mixed_problems, tmp_path):
    def build(**settings):
        config = grpo_config(
            tmp_path / "run", **{"per_device_train_batch_size": 8, "save_strategy": "no", **settings}
        )
        loaded = as_loaded(make_system("atp_latent"))
        return GRPOTrainer(loaded, config, mixed_problems, RewardSet([letters]))

    return build


@pytest.mark.parametrize(
    ("settings", "scored"),
    [
        ({}, False),
        ({"gradient_accumulation_steps": 2}, False),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1, "num_iterations": 2}, False),
        ({"steps_per_generation": 2}, True),
        ({"num_iterations": 2}, True),
    ],
)
def test_a_rollout_is_scored_before_its_updates_where_there_are_several(settings, scored, make_trainer):
    """TRL's rule. A single update compares each pass with itself, which costs nothing."""
    trainer = make_trainer(**settings)
    passes = []
    compute = trainer.objective.scores
    trainer.objective.scores = lambda *args: passes.append(torch.is_grad_enabled()) or compute(*args)
    batch = trainer._prepare_inputs({"indices": torch.arange(2 * trainer.minibatches)})
    assert passes == [False] * trainer.minibatches * scored
    assert (batch.old is not None) == scored
    trainer.compute_loss(trainer.model, batch)
    assert float(trainer.loss_parts["log_ratio/latents"]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_in_float32_they_are_those_of_the_rollout(gradient, make_trainer):
    trainer = make_trainer(num_iterations=2, latent_gradient=gradient)
    batch = trainer._prepare_inputs({"indices": torch.arange(2)})
    sampled = LogProbs.of_rollout(batch.trajectories, None)
    for name in ("stops", "answers", *(["latents"] if gradient == "score_function" else [])):
        torch.testing.assert_close(getattr(batch.old, name), getattr(sampled, name), atol=1e-3, rtol=1e-5)


def test_the_logged_difference_by_hand(make_trainer):
    """Of valid actions: slots with their stops, tokens; the largest, and the mean."""
    trainer = make_trainer(num_iterations=2, mask_truncated_completions=True, max_completion_length=40)
    batch = trainer._prepare_inputs({"indices": torch.arange(2)})
    trajectories, finished = batch.trajectories, batch.trajectories.finished
    assert 0 < finished.sum() < 8
    trajectories.answer_log_probs = batch.old.answers + 0.25
    trajectories.answer_log_probs[finished.nonzero()[0], 0] += 1.0
    trajectories.answer_log_probs[~finished] += 7.0
    trajectories.latent_log_probs = batch.old.latents - 0.5
    trajectories.latent_log_probs[~finished] -= 7.0
    trajectories.stop_log_probs = batch.old.stops.clone()
    trainer.compute_loss(trainer.model, batch)
    found = {name: float(value) for name, value in trainer.loss_parts.items() if name.startswith(DIFFERENCE)}
    tokens = int(trajectories.answer_mask[finished].sum())
    slots, stops = (int(each[finished].sum()) for each in (trajectories.slot_mask, trajectories.stops))
    assert found == pytest.approx(
        {
            f"{DIFFERENCE}/mean": 0.25 + 1.0 / tokens,
            f"{DIFFERENCE}/max": 1.25,
            f"{DIFFERENCE}/latents/mean": 0.5 * slots / (slots + stops),
            f"{DIFFERENCE}/latents/max": 0.5,
        },
        abs=1e-4,
    )
