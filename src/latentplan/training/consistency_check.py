"""The check at the start of training: what a method trains is what its rollouts compute, on one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor
from latentplan.methods.base import Method
from latentplan.modeling.counter_rng import Draws, Stream, derive, slots
from latentplan.modeling.efficiency.linear_layers import has_sharded_weights
from latentplan.modeling.efficiency.prefill import prefill
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import Given, LatentChain, read_text, think
from latentplan.training.trainable_model import LatentModelForTraining

TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest differences, in units of the root mean square of what is compared; `ROUGH` for other dtypes."""
ROUGH = 0.25


class InconsistentMethodError(ValueError):
    """Training and rollouts of a method compute different things."""


@torch.no_grad()
def check_method(model: LatentReasoner, method: Method, batch: Batch) -> dict[str, float]:
    """Compares the method's forward pass with what a rollout computes of the same batch.

    There are two comparisons: latents drawn from the same noise, where training reads its own latents; and
    the distributions and text states where the rollout is given the latents that training read.

    Args:
        model: the reasoner, in evaluation mode.
        method: whose `forward` trains it.
        batch: of the method, on the model's device.

    Returns:
        the largest difference of each thing that was compared, in units of its root mean square.

    Raises:
        InconsistentMethodError: names what differs, at which index, and by how much.
    """
    trained = method.forward(model, batch)
    chain, own = trained.chain, method.latents_read(trained)
    passes: list[tuple[str, Given | None]] = [
        ("with training's latents given", Given.observed(chain.latents if own is None else own))
    ]
    if own is None:
        passes.insert(0, ("from the same noise", None))
    found = {}
    for how, given in passes:
        rolled, hidden = _rolled(model, batch, given)
        skip = trained.text_hidden.shape[1] - hidden.shape[1]
        if skip < 0 or (chain.log_variance is None) != (rolled.log_variance is None):
            raise InconsistentMethodError(
                "training and rollouts compute different things: one of them has a σ, or text states, that "
                "the other lacks (docs/adding-a-method.md)"
            )
        pairs = {
            "latents": (chain.latents if own is None else own, rolled.latents, rolled.mask),
            "means": (chain.mean, rolled.mean, rolled.mask),
            "text states": (trained.text_hidden[:, skip:], hidden, batch["text_mask"][:, skip:]),
        }
        if chain.log_variance is not None and rolled.log_variance is not None:
            pairs["log σ²"] = (chain.log_variance, rolled.log_variance, rolled.mask)
        for name, (one, other, mask) in pairs.items():
            found[f"{name} {how}"] = _compare(f"{name} {how}", one, other, mask, model.backbone.dtype)
    return found


ROWS = 4
"""Problems of the batch that is checked."""


def check_training(
    system: LatentModelForTraining,
    processor: ProblemProcessor,
    encoded: Sequence[EncodedProblem],
    stages: Sequence[int],
    seed: int,
) -> None:
    """Runs `check_method` on a few training problems, at the first stage that has latents, if any has.

    Raises:
        InconsistentMethodError: training and rollouts compute different things.
    """
    with_latents = [stage for stage in stages if stage]
    reasoner = system.reasoner
    if not reasoner.config.has_latents or not with_latents or has_sharded_weights(reasoner.backbone):
        return
    problems = [encoded[index] for index in range(min(ROWS, len(encoded)))]
    keys = derive(seed, Stream.EXAMPLE, torch.arange(len(problems)))
    batch = system.method.batch(processor, problems, with_latents[:1] * len(problems), reasoner.config, keys)
    was_training = system.training
    system.eval()
    try:
        check_method(
            reasoner, system.method, {name: each.to(reasoner.device) for name, each in batch.items()}
        )
    finally:
        system.train(was_training)


def _rolled(model: LatentReasoner, batch: Batch, given: Given | None) -> tuple[LatentChain, Tensor]:
    """Thinks and reads as rollouts do; the chain, and the hidden state before each text token."""
    mask = batch["slot_mask"]
    state = model.start(batch["question_ids"], batch["question_mask"])
    prefill(state)
    noise = slots(batch["noise_keys"], mask.shape[1], model.config.hidden_size) if mask.shape[1] else None
    chain = think(model, state, LatentLength(mask), Draws(latents=noise), 1.0, given)
    skip = min(1, mask.shape[1])  # a rollout appends <|end-latent|> by itself
    if skip:
        state.append(*model.end_latent(state.rows))
    return chain, read_text(state, model.embed(batch["text_ids"])[:, skip:], batch["text_mask"][:, skip:])


def _compare(what: str, one: Tensor, other: Tensor, mask: Tensor, dtype: torch.dtype) -> float:
    if not one.numel() or not mask.any():
        return 0.0
    # Outlying dimensions, which low precision rounds most coarsely, are measured in units of their own.
    scale = one[mask.bool()].float().square().mean().sqrt().clamp(min=1e-6).maximum(one.float().abs())
    distance = ((one - other).float().abs() / scale).amax(dim=-1).masked_fill(mask == 0, 0.0)
    wrong = ~(distance <= TOLERANCES.get(dtype, ROUGH))  # NaN is
    if wrong.any():
        column = int(wrong.any(dim=0).nonzero()[0])
        raise InconsistentMethodError(
            f"training and rollouts compute different {what}: at index {column} by "
            f"{float(distance[:, column].max()):.2g} of their size. A method's latents come from its "
            "thinking process: move what `forward` changes into a ThinkingProcess (docs/adding-a-method.md)"
        )
    return float(distance.max())
