"""Drawn plans: their probabilities, what they teach, and that nothing depends on the batch around them."""

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.rollout.plan_decoding import decode_plans, sample_plans, score_plans
from latentplan.rollout.solve import question_batch


@pytest.fixture(scope="module")
def loaded(make_system, as_loaded):
    return as_loaded(make_system("atp_latent"))


def roll(loaded, problems, draws=3):
    ids, mask = question_batch(loaded, [problem.question for problem in problems])
    places = torch.arange(len(problems))
    return generate(loaded.reasoner, ids, mask, places, seed=4, sampling=Sampling(), draws=draws)


def draw(loaded, rolled, temperature=1.3, **options):
    return sample_plans(loaded.step_decoder, loaded.tokenizer, rolled, temperature, **options)


def test_a_plan_has_as_many_steps_as_latents_and_a_probability(loaded, mixed_problems):
    rolled = roll(loaded, mixed_problems[:4])
    plans, tokens = draw(loaded, rolled, max_new_tokens=9)
    steps = rolled.slot_mask[:, :: loaded.reasoner.config.latents_per_step].sum(dim=1)
    assert [len(plan) for plan in plans] == steps.tolist()
    assert tokens.mask.any(dim=2).sum(dim=1).tolist() == steps.tolist()
    again = score_plans(loaded.step_decoder, rolled.latents, tokens, 1.3)
    torch.testing.assert_close(again, tokens.log_probs, rtol=1e-4, atol=1e-5)
    assert float(tokens.log_probs.sum()) < 0
    assert float((tokens.log_probs * (1 - tokens.mask)).abs().max()) == 0


def test_plans_follow_from_the_chain_not_from_the_batch(loaded, mixed_problems):
    whole, _ = draw(loaded, roll(loaded, mixed_problems[:4]))
    alone, _ = draw(loaded, roll(loaded, mixed_problems[:2]))
    assert alone == whole[:6]
    assert len({tuple(plan) for plan in whole}) > 2, "an untrained decoder writes anything"


def test_a_cold_decoder_writes_the_greedy_plan(loaded, mixed_problems):
    rolled = roll(loaded, mixed_problems[:3])
    cold, _ = draw(loaded, rolled, temperature=1e-4)
    assert cold == decode_plans(loaded.step_decoder, loaded.tokenizer, rolled.latents, rolled.slot_mask)


def test_chains_without_latents_have_no_plan(loaded, mixed_problems):
    rolled = roll(loaded, mixed_problems[:2])
    rolled.slot_mask.zero_()
    plans, tokens = draw(loaded, rolled)
    assert plans == [[]] * 6
    scored = score_plans(loaded.step_decoder, rolled.latents.requires_grad_(), tokens, 1.0)
    assert float(scored.detach().sum()) == 0


def test_each_step_teaches_its_own_latents(loaded, mixed_problems):
    rolled = roll(loaded, mixed_problems[:2])
    rolled.slot_mask.fill_(1)
    _, tokens = draw(loaded, rolled)
    latents = rolled.latents.clone().requires_grad_()
    score_plans(loaded.step_decoder, latents, tokens, 1.3)[0, 1].sum().backward()
    size = loaded.reasoner.config.latents_per_step
    reached = latents.grad.abs().sum(dim=2) > 0
    assert reached[0].nonzero()[:, 0].tolist() == list(range(size, 2 * size))
    assert not reached[1:].any()
