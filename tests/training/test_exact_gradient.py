"""Estimators against the exact policy gradient of a latent bandit: one latent of four dimensions, one token.

The expected reward is an integral over the latent's noise, by Gauss-Hermite quadrature, and a sum over the
vocabulary, so its gradient is known. A group's mean contains the sample itself, so the expectation of what
is estimated is (G − 1)/G of it.
"""

import itertools

import numpy as np
import pytest
import torch

from latentplan.modeling.counter_rng import Draws
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import think
from latentplan.rollout.engine import generate
from latentplan.training.latent_gradients import LATENT_GRADIENTS, LogProbs
from latentplan.training.rl_losses import (
    clipped_surrogate,
    group_advantages,
    masked_trajectory_mean,
    no_scaling,
)

HIDDEN, NODES, GROUP, GROUPS, BATCHES = 4, 9, 8, 128, 24
SAMPLING = Sampling(max_new_tokens=1)
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 8,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "initializer_range": 0.6,
}


@pytest.fixture(scope="module")
def bandit(make_system, make_batch, mixed_problems):
    system = make_system(
        "atp_latent",
        backbone=SIZES,
        max_latent_steps=1,
        latents_per_step=1,
        stop_head=False,
        objectives={},
        initial_log_variance=-0.5,
    )
    batch = make_batch(system, mixed_problems[:1])
    vocabulary = system.reasoner.get_output_embeddings().weight.shape[0]
    rewards = (torch.arange(vocabulary) * 7919 % 11 < 4).float()
    return system.reasoner.eval(), batch["question_ids"], batch["question_mask"], rewards


def expected_reward(bandit):
    """∫ N(ε; 0, I) Σ_token p(token | μ + σ·ε)·R(token) dε."""
    model, ids, mask, rewards = bandit
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    grid = torch.tensor(list(itertools.product(nodes, repeat=HIDDEN)), dtype=torch.float32)
    weight = torch.tensor([np.prod(each) for each in itertools.product(weights, repeat=HIDDEN)])
    context = model.start(ids, mask)
    context.read()
    context = context.repeat(len(grid))
    used = torch.ones(len(grid), 1, dtype=torch.long)
    think(model, context, LatentLength(used), Draws(latents=grid.unsqueeze(1)))
    context.append(*model.end_latent(len(grid)))
    probabilities = torch.softmax(model.logits(context.read()[:, -1]), dim=-1)
    return (weight / weight.sum()).float() @ (probabilities @ rewards)


def gradient(value, model):
    """Of the policy's parameters, as one vector; 0 for those that the value does not depend on."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
    )


def estimate(bandit, name, seed, kinds=("latents", "answers")):
    """What one step of GRPO would follow, from GROUPS · GROUP samples."""
    model, ids, mask, rewards = bandit
    rolled = generate(
        model, ids, mask, torch.zeros(1).long(), seed=seed, sampling=SAMPLING, draws=GROUPS * GROUP
    )
    advantages = group_advantages(rewards[rolled.answer_ids[:, 0]], GROUP, no_scaling)
    estimator = LATENT_GRADIENTS[name]
    scores = estimator.scores(model, rolled, SAMPLING)
    loss = torch.zeros(())
    new, old = LogProbs(scores.latents, scores.stops, scores.answers), LogProbs.of_rollout(rolled, None)
    for actions in estimator.actions(new, old, rolled, latent_scale=1.0):
        if actions.name in kinds:
            surrogate = clipped_surrogate(actions.log_probs, actions.old_log_probs, advantages, actions.mask)
            loss = loss + masked_trajectory_mean(surrogate.loss, actions.mask)
    return gradient(-loss, model)


@pytest.fixture(scope="module")
def exact(bandit):
    return gradient(expected_reward(bandit), bandit[0])


@pytest.fixture(scope="module")
def estimates(bandit):
    """`[batches, parameters]` of each estimator, and of answer words alone."""

    def many(name, **kinds):
        return torch.stack([estimate(bandit, name, seed, **kinds) for seed in range(BATCHES)])

    words = many("score_function", kinds=("answers",))
    return {**{name: many(name) for name in ("score_function", "pathwise")}, "words": words}


def test_the_quadrature_is_exact_and_the_expectation_that_of_samples(bandit, exact, monkeypatch):
    model, ids, mask, rewards = bandit
    value = expected_reward(bandit).item()
    monkeypatch.setitem(globals(), "NODES", 7)
    fewer = gradient(expected_reward(bandit), model)
    assert float((fewer - exact).norm() / exact.norm()) < 0.02
    rolled = generate(model, ids, mask, torch.zeros(1).long(), seed=0, sampling=SAMPLING, draws=20_000)
    sampled = rewards[rolled.answer_ids[:, 0]]
    assert float(sampled.mean()) == pytest.approx(value, abs=4 * float(sampled.std()) / 20_000**0.5)
    assert float(exact.norm()) > 0.05


@pytest.mark.parametrize("name", ["score_function", "pathwise"])
def test_an_estimator_is_unbiased(name, exact, estimates):
    """Along the gradient and along directions at random, within four standard errors."""
    torch.manual_seed(0)
    samples = estimates[name]
    directions = torch.cat([exact[None], torch.randn(30, len(exact)) * exact.abs()])
    along = samples @ directions.T
    wanted = (GROUP - 1) / GROUP * directions @ exact
    error = along.std(dim=0) / BATCHES**0.5
    assert float(((along.mean(dim=0) - wanted).abs() / error).max()) < 4
    assert float(torch.cosine_similarity(samples.mean(dim=0), exact, dim=0)) > 0.9


@pytest.fixture(scope="module")
def of_the_head(bandit):
    """Which parameters are the latent head's."""
    names = [name for name, each in bandit[0].named_parameters() for _ in range(each.numel())]
    return torch.tensor([name.startswith("latent_head") for name in names])


@pytest.mark.parametrize("name", ["score_function", "pathwise"])
def test_the_latent_head_is_taught_without_bias(name, exact, estimates, of_the_head):
    wanted = exact[of_the_head]
    along = estimates[name][:, of_the_head] @ wanted
    error = float(along.std()) / BATCHES**0.5
    assert float(along.mean()) == pytest.approx((GROUP - 1) / GROUP * float(wanted @ wanted), abs=4 * error)


def test_answer_words_alone_leave_out_what_latents_do(exact, estimates, of_the_head):
    """They are no estimate of the whole gradient: the latent head learns nothing from them."""
    assert float(exact[of_the_head].norm()) > 1e-3
    assert float(estimates["words"][:, of_the_head].abs().max()) == 0


def test_the_pathwise_gradient_has_far_less_variance(exact, estimates, of_the_head):
    """Most of the reward's variance comes from the word that is drawn, as in real models."""
    heads = {name: found[:, of_the_head] for name, found in estimates.items()}
    variance = {name: float(found.var(dim=0).sum()) for name, found in heads.items()}
    assert variance["pathwise"] < variance["score_function"] / 100
    agreement = torch.cosine_similarity(heads["pathwise"].mean(dim=0), exact[of_the_head], dim=0)
    assert float(agreement) > 0.9
