"""The supervised objectives, each a sum over the batch and the count that it is divided by.

Sum and count are kept apart so that accumulated micro-batches and several devices can divide by the count of
the whole effective batch: the result then depends on the effective batch alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from latentplan.encoding.processor import Batch
from latentplan.modeling.efficiency.chunked_logits import at_places, token_log_probs
from latentplan.modeling.latent_heads import standard_normal_kl
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.modeling.thinking import LatentChain


class TrainableModel(Protocol):
    """What an objective sees of the model that is trained.

    Attributes:
        reasoner: the latent reasoner.
        step_decoder: decodes steps from latents, or None.
    """

    reasoner: LatentReasoner
    step_decoder: StepDecoder | None


@dataclass
class ForwardPass:
    """What a method's forward pass leaves for the objectives.

    Attributes:
        chain: the latents and their distributions, `[batch, slots, hidden]`.
        text_hidden: the hidden state before each text token, `[batch, text, hidden]`.
    """

    chain: LatentChain
    text_hidden: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """One part of the loss: the mean over the entries of total / count; an entry that nothing counts is 0.

    The number of entries is a property of the curriculum stage (1, or S for what is summed by latent step),
    never of the problems that were drawn: the weight of an objective does not depend on them.

    Attributes:
        total: (system, forward pass, batch) to the batch's sums, a vector of as many entries.
        count: batch to the vector of counts, known before the forward pass.
        needs: the part it cannot do without: 'stop_head', 'step_decoder', 'gaussian latent_head', or None.
        by_step: whether it divides by S, so that latents have to stand for the steps of a stage.
    """

    total: Callable[[TrainableModel, ForwardPass, Batch], torch.Tensor]
    count: Callable[[Batch], torch.Tensor]
    needs: str | None = None
    by_step: bool = False

    def value(
        self, system: TrainableModel, forward: ForwardPass, batch: Batch, count: torch.Tensor
    ) -> torch.Tensor:
        """This batch's share of the objective, given the counts of the whole effective batch."""
        total = self.total(system, forward, batch)
        return (total / count[: total.shape[0]].clamp(min=1)).sum() / max(1, total.shape[0])


def text_total(system: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Summed cross-entropy of the text after the latents (L_enc), logits only where there are labels."""
    where = batch["label_places"]
    hidden, labels = at_places(forward.text_hidden, where), at_places(batch["labels"], where)
    return -token_log_probs(system.reasoner, hidden, labels).sum()[None]


def text_count(batch: Batch) -> torch.Tensor:
    """Labelled tokens."""
    return torch.tensor([len(batch["label_places"])], device=batch["labels"].device)


def step_decoder_total(system: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """For each of the stage's S latent steps, its text's cross-entropy over the rows that have it (L_dec).

    `[S]`. L_dec is the mean over all S, as in ATP-Latent (arXiv:2601.21598, section 3): a step that no row of
    the effective batch has adds nothing, and does not make the others weigh more.
    """
    decoder = system.step_decoder
    assert decoder is not None
    size = system.reasoner.config.latents_per_step
    num_steps = batch["slot_mask"].shape[1] // size
    if num_steps == 0:
        return forward.chain.latents.new_zeros(0)
    by_step = forward.chain.latents.unflatten(1, (num_steps, size))
    if batch["step_row"].numel() == 0:
        # Problems without steps: where the decoder is spread over devices, all of them must run it.
        unread = decoder(by_step[:1, 0], batch["step_ids"].new_zeros(1, 1))
        return 0.0 * unread.sum() + by_step.new_zeros(num_steps)
    where = batch["step_places"]
    hidden = decoder.hidden_states(by_step[batch["step_row"], batch["step_index"]], batch["step_ids"])
    labels = at_places(batch["step_labels"], where)
    losses = -token_log_probs(decoder, at_places(hidden, where), labels)
    step = at_places(batch["step_index"].unsqueeze(1).expand_as(batch["step_ids"]), where)
    return losses.new_zeros(num_steps).index_add(0, step, losses)


def step_decoder_count(batch: Batch) -> torch.Tensor:
    """For each latent step, the rows that have it; `[slots]`, of which the first `slots / c` count."""
    return torch.bincount(batch["step_index"], minlength=max(1, batch["slot_mask"].shape[1]))


def stop_total(system: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the stop head against 'this slot is unused', summed over slots, per step (L_stop)."""
    stop_head = system.reasoner.stop_head
    assert stop_head is not None
    num_steps = max(1, batch["slot_mask"].shape[1] // system.reasoner.config.latents_per_step)
    logits = stop_head(forward.chain.latents).flatten(0, 1)
    unused = (1 - batch["slot_mask"]).flatten()
    return F.cross_entropy(logits, unused, reduction="sum")[None] / num_steps


def row_count(batch: Batch) -> torch.Tensor:
    """Rows."""
    return torch.tensor([batch["slot_mask"].shape[0]], device=batch["slot_mask"].device)


def kl_total(system: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """½(μ² + σ² − 1 − log σ²), mean over dimensions, summed over the slots in use (L_KL)."""
    chain = forward.chain
    if chain.log_variance is None:  # a stage without latents
        return chain.mean.new_zeros(1)
    divergence = standard_normal_kl(chain.mean, chain.log_variance)
    return (divergence.mean(dim=-1) * batch["slot_mask"]).sum()[None]


def used_slot_count(batch: Batch) -> torch.Tensor:
    """Slots in use."""
    return batch["slot_mask"].sum()[None]


OBJECTIVES: dict[str, Objective] = {
    "text": Objective(text_total, text_count),
    "step_decoder": Objective(step_decoder_total, step_decoder_count, needs="step_decoder", by_step=True),
    "stop": Objective(stop_total, row_count, needs="stop_head", by_step=True),
    "kl": Objective(kl_total, used_slot_count, needs="gaussian latent_head"),
}
