"""The slow way of published implementations gives exactly what ours gives: same tokens, same losses."""

import sys
from pathlib import Path

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate, trajectory_keys

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def published():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import published_way
    finally:
        sys.path.remove(str(BENCHMARKS))
    return published_way


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["coconut", "atp_latent"])
@torch.no_grad()
def test_rollouts_are_equal_token_by_token(
    family, method, published, make_system, make_batch, mixed_problems
):
    system = make_system(method, family=family)
    reasoner = system.reasoner.eval()
    batch = make_batch(system, mixed_problems)
    ids, mask = batch["question_ids"], batch["question_mask"]
    sampling, places, draws = Sampling(temperature=1.3, max_new_tokens=8), torch.arange(len(ids)), 4
    rolled = generate(reasoner, ids, mask, places, seed=3, sampling=sampling, draws=draws)
    keys = trajectory_keys(3, places, draws)
    lengths = set()
    for row in range(len(keys)):
        question = ids[row // draws : row // draws + 1, int((1 - mask[row // draws]).sum()) :]
        alone = published.roll_out_one(reasoner, question, keys[row : row + 1], sampling)
        assert alone.answer_ids == rolled.answer_ids[row][rolled.answer_mask[row].bool()].tolist()
        used = rolled.latents[row][rolled.slot_mask[row].bool()]
        torch.testing.assert_close(alone.latents, used, atol=1e-4, rtol=1e-4)
        lengths.add(len(used))
    assert len(lengths) == (1 if method == "coconut" else 4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["coconut", "sim_cot", "atp_latent"])
@pytest.mark.parametrize("stage", [1, 3])
def test_losses_and_gradients_are_equal(
    family, method, stage, published, make_system, make_batch, mixed_problems
):
    system = make_system(method, family=family, backbone={"initializer_range": 0.1})
    batch = make_batch(system, mixed_problems, stage)
    ours, theirs = system(**batch)["loss"], published.supervised_loss(system, batch)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weights = [each for each in system.parameters() if each.requires_grad]
    for mine, other in zip(
        torch.autograd.grad(ours, weights, allow_unused=True),
        torch.autograd.grad(theirs, weights, allow_unused=True),
        strict=True,
    ):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-3)
