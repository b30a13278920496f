"""Gradient checkpointing through the latent passes: the same numbers, fewer tensors kept."""

import pytest
import torch

from latentplan.modeling.efficiency.gradient_checkpointing import checkpoint_layers, decoder_layers
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import replay, score


@pytest.fixture(params=["llama", "gpt2"])
def family(request):
    return request.param


@pytest.fixture
def systems(make_system, family):
    """The same system twice: as it is, and with its layers recomputed."""

    def build(method, **settings):
        plain, other = (make_system(method, family=family, seed=1, **settings) for _ in range(2))
        for part in (other.reasoner, other.step_decoder):
            if part is not None:
                checkpoint_layers(part.backbone)
        return plain, other

    return build


def gradients(system, value):
    system.zero_grad()
    value.backward()
    return {name: weight.grad for name, weight in system.named_parameters() if weight.grad is not None}


def assert_equal_gradients(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", ["cot", "coconut", "sim_cot", "codi", "colar", "atp_latent"])
def test_supervised_losses_and_gradients_are_the_same(method, systems, make_batch, mixed_problems):
    plain, other = systems(method)
    batch = make_batch(plain, mixed_problems)
    expected, found = plain(**batch)["loss"], other(**batch)["loss"]
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-6)
    assert_equal_gradients(gradients(plain, expected), gradients(other, found))


@pytest.mark.parametrize("scores", ["score", "replay"])
def test_scores_of_trajectories_and_their_gradients_are_the_same(scores, systems, make_batch, mixed_problems):
    plain, other = (system.eval() for system in systems("atp_latent"))
    batch, sampling = make_batch(plain, mixed_problems), Sampling(max_new_tokens=5)
    trajectories = generate(
        plain.reasoner,
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(6),
        seed=0,
        sampling=sampling,
        draws=2,
        answers=2,
    )

    def total(system):
        if scores == "score":
            found = score(system.reasoner, trajectories, sampling)
        else:
            noise = torch.zeros_like(trajectories.latents)
            found = replay(system.reasoner, trajectories, noise, sampling)
        return found.answers.sum() + found.stops.sum() + found.latents.sum() / 100

    expected, found = total(plain), total(other)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)
    assert_equal_gradients(gradients(plain.reasoner, expected), gradients(other.reasoner, found))


def test_a_rollout_is_the_same(systems, make_batch, mixed_problems):
    plain, other = (system.eval() for system in systems("atp_latent"))
    batch = make_batch(plain, mixed_problems)

    def answers(system):
        return generate(
            system.reasoner,
            batch["question_ids"],
            batch["question_mask"],
            torch.arange(6),
            seed=0,
            sampling=Sampling(max_new_tokens=5),
        )

    expected, found = answers(plain), answers(other)
    assert torch.equal(expected.latents, found.latents)
    assert torch.equal(expected.answer_ids, found.answer_ids)


def test_less_memory_is_kept_for_the_backward_pass(systems, make_batch, mixed_problems):
    """Bytes that a forward pass has allocated and not given back, by torch's own account."""
    plain, other = systems("atp_latent")

    def kept(system):
        batch = make_batch(system, mixed_problems)
        system(**batch)
        with torch.profiler.profile(profile_memory=True) as profile:
            held = system(**batch)["loss"]
        assert held.requires_grad
        return sum(event.self_cpu_memory_usage for event in profile.key_averages())

    assert kept(other) < 0.5 * kept(plain)


def test_layers_are_wrapped_once(make_backbone):
    backbone = make_backbone()
    checkpoint_layers(backbone)
    forwards = [layer.forward for layer in decoder_layers(backbone)]
    assert len(forwards) == 2
    checkpoint_layers(backbone)
    assert forwards == [layer.forward for layer in decoder_layers(backbone)]
