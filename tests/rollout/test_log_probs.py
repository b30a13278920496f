"""Recomputed log-probabilities equal those at sampling time, and their gradients are the right ones."""

import math

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import chain_noise, generate
from latentplan.rollout.logprobs import replay, score

CLOSE = {"atol": 1e-4, "rtol": 1e-5}


def roll_out(system, batch, sampling, draws=3, answers=2):
    return generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(batch["question_ids"])),
        seed=1,
        sampling=sampling,
        draws=draws,
        answers=answers,
    )


def recorded_noise(system, rolled):
    return chain_noise(system.reasoner, rolled.chain_keys) if rolled.latents.shape[1] else rolled.latents


@pytest.mark.parametrize("recompute", ["score", "replay"])
@pytest.mark.parametrize(("draws", "answers"), [(1, 1), (3, 2)])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=6),
        Sampling(temperature=0.6, latent_temperature=0.4, max_new_tokens=6),
        Sampling(temperature=1.7, latent_temperature=1.3, max_new_tokens=1),
        Sampling(temperature=1.0, latent_temperature=0.0, max_new_tokens=6),
        Sampling.greedy(6),
    ],
    ids=["1", "cooler", "hotter", "means", "greedy"],
)
@pytest.mark.parametrize(
    ("method", "family"),
    [
        ("cot", "llama"),
        ("no_cot", "llama"),
        ("sim_cot", "llama"),
        ("atp_latent", "llama"),
        ("atp_latent", "gpt2"),
    ],
)
@torch.no_grad()
def test_log_probabilities_are_those_at_sampling_time(
    method, family, sampling, draws, answers, recompute, make_system, make_batch, mixed_problems
):
    system = make_system(method, family=family, backbone={"initializer_range": 0.1})
    rolled = roll_out(system, make_batch(system, mixed_problems), sampling, draws, answers)
    if recompute == "score":
        scores = score(system.reasoner, rolled, sampling)
    else:
        scores = replay(system.reasoner, rolled, recorded_noise(system, rolled), sampling)
    used = rolled.slot_mask.bool()
    torch.testing.assert_close(scores.chain.latents[used], rolled.latents[used], **CLOSE)
    torch.testing.assert_close(scores.latents, rolled.latent_log_probs, **CLOSE)
    torch.testing.assert_close(scores.stops, rolled.stop_log_probs, **CLOSE)
    torch.testing.assert_close(scores.answers, rolled.answer_log_probs, **CLOSE)
    taken = rolled.answer_mask.bool()
    assert bool((scores.answers[taken] < 0).all())
    if method == "atp_latent" and sampling.latent_temperature:
        assert bool((rolled.latent_log_probs[used] != 0).all())
    if method == "atp_latent":
        assert bool((rolled.stop_log_probs[rolled.stop_mask.bool()] < 0).all())


@torch.no_grad()
def test_the_density_of_latents_by_hand(make_system, make_batch, mixed_problems):
    """log N(z; μ, (τσ)²) with z = μ + τσε is −½Σ(ε² + log 2π) − Σ(log σ + log τ)."""
    system = make_system("atp_latent")
    rolled = roll_out(system, make_batch(system, mixed_problems), Sampling(latent_temperature=0.3))
    epsilon = chain_noise(system.reasoner, rolled.chain_keys)
    chain = replay(system.reasoner, rolled, epsilon, Sampling(latent_temperature=0.3)).chain
    by_hand = -0.5 * (epsilon.square() + math.log(2 * math.pi)) - 0.5 * chain.log_variance - math.log(0.3)
    used = rolled.slot_mask.bool()
    torch.testing.assert_close(rolled.latent_log_probs[used], by_hand.sum(-1)[used], atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_entropy_by_hand(make_system, make_batch, mixed_problems):
    system = make_system("cot")
    sampling = Sampling(temperature=0.8, max_new_tokens=4)
    rolled = roll_out(system, make_batch(system, mixed_problems[:1]), sampling)
    entropy = score(system.reasoner, rolled, sampling).entropy
    logits = system.reasoner.backbone(rolled.question_ids).logits[0, -1]
    probabilities = torch.softmax(logits / 0.8, dim=-1).double()
    expected = -(probabilities * probabilities.log()).sum()
    torch.testing.assert_close(entropy[:, 0].double(), expected.expand(6), atol=1e-4, rtol=1e-4)
    assert bool((entropy[~rolled.answer_mask.bool()] == 0).all())


@torch.no_grad()
def test_another_policy_gives_other_log_probabilities(make_system, make_batch, mixed_problems):
    system, other = make_system("atp_latent"), make_system("atp_latent", seed=1)
    rolled = roll_out(system, make_batch(system, mixed_problems), Sampling(max_new_tokens=4))
    scores = score(other.reasoner.eval(), rolled, Sampling(max_new_tokens=4))
    for mine, theirs in [
        (rolled.latent_log_probs, scores.latents),
        (rolled.stop_log_probs, scores.stops),
        (rolled.answer_log_probs, scores.answers),
    ]:
        assert float((mine - theirs).abs().max()) > 0.1


def test_a_score_treats_latents_as_given_and_a_replay_does_not(make_system, make_batch, mixed_problems):
    """Answers' log-probabilities move the heads only through the latents, so only when these are replayed."""
    system = make_system("atp_latent")
    sampling = Sampling(max_new_tokens=4)
    rolled = roll_out(system, make_batch(system, mixed_problems), sampling)
    weight = system.reasoner.latent_head.mean.weight

    def gradient(scores):
        return torch.autograd.grad(scores.answers.sum(), weight, allow_unused=True)[0]

    assert gradient(score(system.reasoner, rolled, sampling)) is None
    replayed = gradient(replay(system.reasoner, rolled, recorded_noise(system, rolled), sampling))
    assert float(replayed.abs().max()) > 1e-4


def test_the_pathwise_gradient_is_the_derivative_of_the_replayed_log_probability(
    make_system, make_batch, mixed_problems
):
    """Against central differences along random directions in each head's parameters."""
    system = make_system("atp_latent", backbone={"initializer_range": 0.1}, initial_log_variance=-2.0)
    sampling = Sampling(temperature=0.9, max_new_tokens=4)
    rolled = roll_out(system, make_batch(system, mixed_problems[:4]), sampling)
    noise = recorded_noise(system, rolled)
    head = system.reasoner.latent_head
    torch.manual_seed(0)
    for weight in (head.mean.weight, head.log_variance.weight, head.log_variance.bias, head.trunk[0].weight):

        def total():
            scores = replay(system.reasoner, rolled, noise, sampling)
            return scores.answers.double().sum() + scores.stops.double().sum()

        (gradient,) = torch.autograd.grad(total(), weight)
        direction = torch.randn_like(weight)
        direction /= direction.norm()
        size = 5e-3
        with torch.no_grad():
            weight += size * direction
            above = total()
            weight -= 2 * size * direction
            below = total()
            weight += size * direction
        slope = float(above - below) / (2 * size)
        assert abs(slope) > 1e-3
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.03, abs=2e-3)


def test_the_score_function_gradient_of_latents_by_hand(make_system, make_batch, mixed_problems):
    """∂ log N/∂μ = (z − μ)/σ², ∂ log N/∂ log σ² = ½((z − μ)²/σ² − 1), through the heads' last layers."""
    system = make_system("atp_latent")
    sampling = Sampling(max_new_tokens=2)
    rolled = roll_out(system, make_batch(system, mixed_problems), sampling)
    head = system.reasoner.latent_head
    scores = score(system.reasoner, rolled, sampling)
    mean_bias, variance_bias = torch.autograd.grad(
        scores.latents.sum(), [head.mean.bias, head.log_variance.bias]
    )
    used = rolled.slot_mask.bool()
    mean, variance = scores.chain.mean[used].detach(), scores.chain.log_variance[used].detach().exp()
    distance = rolled.latents[used] - mean
    torch.testing.assert_close(mean_bias, (distance / variance).sum(0), atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(
        variance_bias, (0.5 * (distance.square() / variance - 1)).sum(0), atol=1e-2, rtol=1e-3
    )
