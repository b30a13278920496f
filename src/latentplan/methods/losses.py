"""The supervised objectives: for each, a loss sum over the batch and the number of items that divides it.

Sum and number are kept apart, so that accumulated micro-batches and several devices divide by the number of
items of the whole effective batch: the loss does not depend on how that batch is split.

ATP-Latent (arXiv:2601.21598, section 3) is trained by L = L_enc + L_dec + L_stop + β·L_KL, which are `text`,
`step_decoder`, `stop` and `kl` here. In the shapes below, `slots` are the latent slots of the stage, c is
`latents_per_step`, and S = slots / c are the latent steps of the stage.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from latentplan.encoding.processor import Batch
from latentplan.modeling.efficiency.chunked_logits import at_indices, token_log_probs
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


LossSum = Callable[[TrainableModel, ForwardPass, Batch], torch.Tensor]
NumItems = Callable[[Batch], torch.Tensor]


def _missing(*args: object) -> torch.Tensor:
    raise NotImplementedError


@dataclass(frozen=True)
class Objective:
    """One part of the loss: (1/E) Σ_e loss_sum_e / num_items_e; an entry e without items is 0.

    The number of entries E is a property of the curriculum stage (1, or S for what is summed by latent step),
    never of the problems that were drawn: the weight of an objective does not depend on them.

    Attributes:
        loss_sum: (model, forward pass, batch) to the loss sums of the batch, `[E]`.
        num_items: batch to the numbers of items `[E]`, or more of which the first E are used; known before
            the forward pass.
        needs: the part that it cannot do without: 'stop_head', 'step_decoder', 'gaussian latent_head', or
            None.
        by_step: whether it divides by S, so that latents have to stand for the steps of a stage.

    Raises:
        TypeError: `loss_sum` or `num_items` is missing.
    """

    loss_sum: LossSum = _missing
    num_items: NumItems = _missing
    needs: str | None = None
    by_step: bool = False
    total: InitVar[LossSum | None] = None  # their names in earlier versions
    count: InitVar[NumItems | None] = None

    def __post_init__(self, total: LossSum | None, count: NumItems | None) -> None:
        if total is not None or count is not None:
            warnings.warn(
                "Objective(total=..., count=...) is now Objective(loss_sum=..., num_items=...)",
                FutureWarning,
                stacklevel=3,
            )
            object.__setattr__(self, "loss_sum", total or self.loss_sum)
            object.__setattr__(self, "num_items", count or self.num_items)
        if _missing in (self.loss_sum, self.num_items):
            raise TypeError("an Objective needs loss_sum and num_items")

    def value(
        self, model: TrainableModel, forward: ForwardPass, batch: Batch, num_items: torch.Tensor
    ) -> torch.Tensor:
        """Computes this batch's share of the objective, a scalar.

        Args:
            model: the model that is trained.
            forward: its pass over the batch.
            batch: the batch, or a part of the effective batch.
            num_items: `[E]` or more, of the whole effective batch.
        """
        loss_sum = self.loss_sum(model, forward, batch)
        return (loss_sum / num_items[: loss_sum.shape[0]].clamp(min=1)).sum() / max(1, loss_sum.shape[0])


def text_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums L_enc = -Σ log p(token | question, latents, text before it) over the labelled tokens: `[1]`.

    Logits are computed for labelled tokens alone.
    """
    indices = batch["label_indices"]
    hidden, labels = at_indices(forward.text_hidden, indices), at_indices(batch["labels"], indices)
    return -token_log_probs(model.reasoner, hidden, labels).sum()[None]


def num_labelled_tokens(batch: Batch) -> torch.Tensor:
    """Counts the labelled tokens: `[1]`."""
    return torch.tensor([len(batch["label_indices"])], device=batch["labels"].device)


def step_decoder_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums L_dec for each latent step s over the rows that have it: `[S]`.

    The entry of step s is -Σ log p_φ(token | z_{c(s-1)+1} … z_{cs}, earlier tokens of step s). L_dec is the
    mean over all S (arXiv:2601.21598, section 3): a step that no row of the effective batch has adds
    nothing, and does not make the others weigh more.
    """
    decoder = model.step_decoder
    assert decoder is not None
    size = model.reasoner.config.latents_per_step
    num_steps = batch["slot_mask"].shape[1] // size
    if num_steps == 0:
        return forward.chain.latents.new_zeros(0)
    by_step = forward.chain.latents.unflatten(1, (num_steps, size))  # [batch, S, c, hidden]
    if batch["step_row"].numel() == 0:
        # Problems without steps: where the decoder is sharded, all devices must run it.
        unread = decoder(by_step[:1, 0], batch["step_ids"].new_zeros(1, 1))
        return 0.0 * unread.sum() + by_step.new_zeros(num_steps)
    indices = batch["step_label_indices"]
    hidden = decoder.hidden_states(by_step[batch["step_row"], batch["step_index"]], batch["step_ids"])
    labels = at_indices(batch["step_labels"], indices)
    losses = -token_log_probs(decoder, at_indices(hidden, indices), labels)
    step = at_indices(batch["step_index"].unsqueeze(1).expand_as(batch["step_ids"]), indices)
    return losses.new_zeros(num_steps).index_add(0, step, losses)


def num_rows_with_step(batch: Batch) -> torch.Tensor:
    """Counts the rows that have each latent step: `[slots]`, of which the first S are used."""
    return torch.bincount(batch["step_index"], minlength=max(1, batch["slot_mask"].shape[1]))


def stop_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums L_stop = -(1/S) Σ_t log p_stop(y_t | z_t) over the rows, y_t being 'slot t is unused': `[1]`."""
    stop_head = model.reasoner.stop_head
    assert stop_head is not None
    num_steps = max(1, batch["slot_mask"].shape[1] // model.reasoner.config.latents_per_step)
    logits = stop_head(forward.chain.latents).flatten(0, 1)
    unused = (1 - batch["slot_mask"]).flatten()
    return F.cross_entropy(logits, unused, reduction="sum")[None] / num_steps


def num_rows(batch: Batch) -> torch.Tensor:
    """Counts the rows: `[1]`."""
    return torch.tensor([batch["slot_mask"].shape[0]], device=batch["slot_mask"].device)


def kl_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums L_KL = ½(μ² + σ² - 1 - log σ²), the mean over dimensions, over the slots in use: `[1]`.

    The paper sums over the d dimensions with β = 1e-3/d; the mean has the weight 1e-3.
    """
    chain = forward.chain
    if chain.log_variance is None:  # a stage without latents
        return chain.mean.new_zeros(1)
    divergence = standard_normal_kl(chain.mean, chain.log_variance)
    return (divergence.mean(dim=-1) * batch["slot_mask"]).sum()[None]


def num_used_slots(batch: Batch) -> torch.Tensor:
    """Counts the slots in use: `[1]`."""
    return batch["slot_mask"].sum()[None]


OBJECTIVES: dict[str, Objective] = {
    "text": Objective(text_loss_sum, num_labelled_tokens),
    "step_decoder": Objective(step_decoder_loss_sum, num_rows_with_step, needs="step_decoder", by_step=True),
    "stop": Objective(stop_loss_sum, num_rows, needs="stop_head", by_step=True),
    "kl": Objective(kl_loss_sum, num_used_slots, needs="gaussian latent_head"),
}
"""The objectives that every method can be trained by, by name."""
