"""Nothing in a rollout is on another device than the model, and no step of its loops waits for the device.

Tensors of the device 'meta' have no values: whoever reads one, or mixes it with a CPU's, fails.
"""

import contextlib

import pytest
import torch
from transformers import masking_utils

from latentplan.modeling.efficiency import batch_compaction as active_rows
from latentplan.modeling.efficiency import prefill
from latentplan.modeling.sampling import Sampling
from latentplan.rollout import engine
from latentplan.rollout.engine import generate
from latentplan.training.latent_gradients import LATENT_GRADIENTS

SAMPLING = Sampling(max_new_tokens=5)


@pytest.fixture
def without_values(monkeypatch):
    """What looks at values on purpose looks away: how many rows go on, and how long the answers are."""
    monkeypatch.setattr(active_rows.UnfinishedRows, "rows_to_keep", lambda *given: None)
    monkeypatch.setattr(engine, "int", lambda value: SAMPLING.max_new_tokens, raising=False)
    monkeypatch.setattr(engine.Trajectories, "answer_places", torch.arange(5, device="meta"))
    monkeypatch.setattr(prefill, "TOKEN_COSTS_ELSEWHERE", 0)  # short questions leave the last layer too
    # transformers looks whether the question has padding; PyTorch has no autocast for this device.
    monkeypatch.setattr(masking_utils, "is_tracing", lambda *given: True)
    autocast = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device, **kinds: contextlib.nullcontext() if device == "meta" else autocast(device, **kinds),
    )


@pytest.mark.parametrize("method", ["atp_latent", "coconut", "cot"])
def test_rollouts_and_scores_stay_on_the_device(
    method, make_system, make_batch, mixed_problems, without_values
):
    system = make_system(method)
    batch = make_batch(system, mixed_problems)
    policy = system.reasoner.eval().to("meta")
    rolled = generate(
        policy,
        batch["question_ids"].to("meta"),
        batch["question_mask"].to("meta"),
        torch.arange(6, device="meta"),
        seed=0,
        sampling=SAMPLING,
        draws=2,
        stops=2,
        answers=3,
        memory=2**30,
    )
    assert rolled.answer_ids.shape == (6 * 2 * 2 * 3, 5)
    for name in ("score_function", "pathwise"):
        scores = LATENT_GRADIENTS[name].scores(policy, rolled, SAMPLING)
        (scores.answers.sum() + scores.latents.sum() + scores.stops.sum()).backward()
