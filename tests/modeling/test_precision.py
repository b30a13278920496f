"""Heads, latents and log-probabilities are float32 whatever the backbone, autocast or an engine says."""

import pytest
import torch

from latentplan.modeling.configuration import StepDecoderConfig
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import score


def rollout_and_scores(system, batch):
    sampling = Sampling(max_new_tokens=4)
    trajectories = generate(
        system.reasoner,
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(batch["question_ids"])),
        seed=0,
        sampling=sampling,
    )
    return trajectories, score(system.reasoner, trajectories, sampling)


def test_log_probabilities_of_a_bfloat16_backbone_are_float32(make_system, make_batch, mixed_problems):
    system = make_system("atp_latent").eval()
    system.reasoner.backbone.to(torch.bfloat16)
    trajectories, scores = rollout_and_scores(system, make_batch(system, mixed_problems))
    for value in (
        trajectories.latents,
        trajectories.latent_log_probs,
        trajectories.stop_log_probs,
        trajectories.answer_log_probs,
        scores.chain.mean,
        scores.chain.log_variance,
        scores.latents,
        scores.stops,
        scores.answers,
        scores.entropy,
    ):
        assert value.dtype == torch.float32


@pytest.mark.parametrize("cast", [False, True], ids=["float32_weights", "bfloat16_weights"])
def test_heads_compute_in_float32_under_autocast(cast, make_system):
    """As under `bf16: true`, and as under engines that cast every weight: then the weights are rounded, the
    arithmetic is not."""
    reasoner = make_system("atp_latent").reasoner
    if cast:
        reasoner.latent_head.to(torch.bfloat16)
        reasoner.stop_head.to(torch.bfloat16)
    hidden = torch.randn(5, 32)
    expected = reasoner.latent_head(hidden)
    logits = reasoner.stop_head(expected.mean)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = reasoner.latent_head(hidden.to(torch.bfloat16).float())
        assert found.mean.dtype == found.log_variance.dtype == torch.float32
        inside = reasoner.latent_head(hidden)
        inside_logits = reasoner.stop_head(inside.mean)
    assert torch.equal(inside.mean, expected.mean)
    assert torch.equal(inside.log_variance, expected.log_variance)
    assert torch.equal(inside_logits, logits)


def test_training_under_autocast_is_close_to_training_without(make_system, make_batch, mixed_problems):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    expected = system(**batch)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = system(**batch)["loss"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    found.backward()
    assert all(weight.grad.dtype == torch.float32 for weight in system.reasoner.parameters())


@pytest.fixture
def narrow_decoder(make_backbone, clock_tokenizer):
    """A decoder of width 16 for latents of width 32."""
    model = make_backbone(hidden_size=16, intermediate_size=32)
    config = StepDecoderConfig(
        backbone_config=model.config,
        latent_size=32,
        pad_token_id=clock_tokenizer.pad_token_id,
        eos_token_id=clock_tokenizer.eos_token_id,
    )
    return StepDecoder(config, model)


def test_a_decoder_of_another_width_learns_to_read(
    narrow_decoder, make_system, overfit, mixed_problems, clock_tokenizer, make_batch, tmp_path
):
    from latentplan.training.trainable_model import LatentModelForTraining

    plain = make_system("atp_latent")
    system = LatentModelForTraining(plain.reasoner, narrow_decoder)
    problems = [problem for problem in mixed_problems if len(problem.steps) <= 2][:2]
    assert overfit(system, problems, bound=0.5, steps=300) < 0.5
    system.save_pretrained(tmp_path, clock_tokenizer)
    again, loaded = LatentModelForTraining.from_pretrained(tmp_path)
    batch = make_batch(system, problems)
    assert torch.equal(again(**batch)["loss"], system(**batch)["loss"])
    assert loaded.step_decoder.config.latent_size == 32
    assert loaded.step_decoder.projection.weight.shape == (16, 32)
    chain = again.method.forward(again.reasoner, batch).chain
    first = loaded.step_decoder.decode(chain.latents[:, :2])
    text = clock_tokenizer.batch_decode(first, skip_special_tokens=True)
    assert text == [problem.steps[0] for problem in problems]
