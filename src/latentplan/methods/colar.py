"""CoLaR (arXiv:2505.16552): a latent stands for the next r tokens of the chain of thought, not for a step.

The tokens of a chain are cut into groups of r, and each group is compressed to one embedding. In training the
model reads these compressed embeddings, so that all slots take one pass, and the latent head learns the
distribution of the next one. r is drawn for each row from 1 to `compression_factor`, and the model is told
r by as many <|start-latent|>; at inference the user chooses it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from latentplan.common.plugins import setting
from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor, Row, collate, pad_right
from latentplan.methods.base import Method
from latentplan.methods.losses import ForwardPass, Objective, TrainableModel
from latentplan.modeling import counter_rng
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.efficiency.chunked_logits import at_indices, token_log_probs
from latentplan.modeling.latent_heads import gaussian_log_prob
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import LatentChain


@dataclass(frozen=True)
class Compressed:
    """A chain of thought in groups of tokens.

    Attributes:
        factor: r, tokens of a group; the last group may have another number.
        groups: token ids of each group.
        drawn: a token id drawn from each group.
    """

    factor: int
    groups: list[list[int]]
    drawn: list[int]


def compress(tokens: Sequence[int], max_factor: int, max_groups: int, key: int) -> Compressed:
    """Cuts a chain into groups of r tokens, r being uniform from 1 to `max_factor`.

    Args:
        tokens: the chain.
        max_factor: the largest r.
        max_groups: groups at most; the last one takes all tokens that are left.
        key: from which r and the drawn tokens are derived.
    """
    draw = random.Random(key)
    factor = 1 + math.floor(draw.random() * max_factor)
    groups = [list(tokens[start : start + factor]) for start in range(0, len(tokens), factor)]
    if len(groups) > max_groups:
        groups = [*groups[: max_groups - 1], list(chain.from_iterable(groups[max_groups - 1 :]))]
    return Compressed(factor, groups, [group[math.floor(draw.random() * len(group))] for group in groups])


def collate_groups(rows: Sequence[Compressed], slots: int, end: int) -> Batch:
    """Collates the groups of a batch.

    Args:
        rows: the chain of each row.
        slots: of the batch.
        end: the token that the slot after a row's last group stands for, where there is such a slot.

    Returns:
        group_ids, group_slots: `[tokens]`, token ids, and the index of each one's slot in the flattened
            `[batch · slots]`.
        drawn_tokens, drawn_slots: `[groups]`, the token drawn from each group, and the index of its slot.
        decided: `[batch, slots]`, 1 for slots that stand for a group or for `end`.
    """
    grouped = [
        (row * slots + slot, token)
        for row, each in enumerate(rows)
        for slot, group in enumerate([*each.groups, [end]][:slots])
        for token in group
    ]
    drawn = [
        (row * slots + slot, token)
        for row, each in enumerate(rows)
        for slot, token in enumerate([*each.drawn, end][:slots])
    ]
    group_slots, group_ids = torch.tensor(grouped).unbind(dim=1)
    drawn_slots, drawn_tokens = torch.tensor(drawn).unbind(dim=1)
    decided = pad_right([[1] * min(slots, len(each.groups) + 1) for each in rows], 0)
    return {
        "group_ids": group_ids,
        "group_slots": group_slots,
        "drawn_tokens": drawn_tokens,
        "drawn_slots": drawn_slots,
        "decided": F.pad(decided, (0, slots - decided.shape[1])),
    }


@dataclass
class CompressedPass(ForwardPass):
    """A pass over compressed embeddings, `[batch, slots, hidden]` each.

    Attributes:
        slot_hidden: the hidden state before each slot.
        compressed: the compressed embedding of each slot; at the slot after the last group, the embedding of
            <|end-latent|>.
    """

    slot_hidden: torch.Tensor
    compressed: torch.Tensor


def tokens_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums the cross-entropy, before each slot, of the token drawn from its group: `[1]`."""
    assert isinstance(forward, CompressedPass)
    hidden = at_indices(forward.slot_hidden, batch["drawn_slots"])
    return -token_log_probs(model.reasoner, hidden, batch["drawn_tokens"]).sum()[None]


def embedding_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums −log N(e / s; μ, σ²), the mean over dimensions, over the decided slots: `[1]`.

    e is the compressed embedding of a slot, and s the standard deviation of the token embeddings.
    """
    assert isinstance(forward, CompressedPass)
    chain = forward.chain
    assert chain.log_variance is not None
    log_prob = gaussian_log_prob(forward.compressed.detach(), chain.mean, chain.log_variance)
    unit = math.log(getattr(model.reasoner.latent_head, "output_scale", 1.0))
    return -((log_prob / chain.mean.shape[-1] + unit) * batch["decided"]).sum()[None]


def end_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums the cross-entropy of the stop head over the slots in use and the one after the last: `[1]`."""
    assert model.reasoner.stop_head is not None
    logits = model.reasoner.stop_head(forward.chain.latents).transpose(1, 2)
    losses = F.cross_entropy(logits, 1 - batch["slot_mask"], reduction="none")
    return (losses * batch["decided"]).sum()[None]


def num_decided_slots(batch: Batch) -> torch.Tensor:
    """Counts the slots in use, and the one after the last of each row, where there is one: `[1]`."""
    return batch["decided"].sum()[None]


MOST_COMPRESSION = 1024


@dataclass(frozen=True)
class CoLaRSettings:
    """The settings of CoLaR.

    Raises:
        ValueError: `compression_factor` is out of range.
    """

    compression_factor: int = setting(
        5, "tokens of the chain of thought that one latent stands for at most, and after training"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.compression_factor <= MOST_COMPRESSION:
            raise ValueError(
                f"compression_factor must be a whole number from 1 to {MOST_COMPRESSION}, got "
                f"{self.compression_factor!r}"
            )


class CoLaR(Method):
    """A Gaussian over the next compressed embedding, and a stop head that decides where the chain ends."""

    name = "colar"
    settings_class = CoLaRSettings
    settings: CoLaRSettings
    latent_head = "embedding"
    stop_head = True
    objectives: ClassVar[dict[str, float]] = {"text": 1.0, "tokens": 1.0, "embedding": 1.0, "end": 1.0}
    own_objectives: ClassVar[dict[str, Objective]] = {
        "tokens": Objective(
            tokens_loss_sum, lambda batch: batch["drawn_slots"].new_tensor([len(batch["drawn_slots"])])
        ),
        "embedding": Objective(embedding_loss_sum, num_decided_slots, needs="gaussian latent_head"),
        "end": Objective(end_loss_sum, num_decided_slots, needs="stop_head"),
    }

    @property
    def tokens_per_latent(self) -> int:
        """The largest r of training, with which the model is used unless another is chosen."""
        return self.settings.compression_factor

    def stages(self, max_latent_steps: int) -> list[int]:
        """Returns stage K alone: the whole chain is latent from the start."""
        return [max_latent_steps]

    def latent_scale(self, initial_latent_scale: float, backbone: PreTrainedModel) -> float:
        """Returns the scale times the standard deviation of the token embeddings, which latents resemble."""
        weight = cast(torch.Tensor, backbone.get_input_embeddings().weight).detach()
        known = not weight.is_meta and weight.numel() > 1
        return initial_latent_scale * (float(weight.float().std()) if known else 1.0)

    def batch(
        self,
        processor: ProblemProcessor,
        problems: Sequence[EncodedProblem],
        stages: Sequence[int],
        config: LatentReasonerConfig,
        keys: torch.Tensor,
    ) -> Batch:
        """Lays problems out with as many slots as the longest row needs, and adds `collate_groups`.

        Raises:
            ValueError: `latents_per_step` is not 1.
        """
        if config.latents_per_step != 1:
            raise ValueError("colar has one latent for each group of tokens: set latents_per_step to 1")
        parts = [
            compress(
                processor.written(problem.steps), self.settings.compression_factor, config.num_slots, key
            )
            for problem, key in zip(problems, keys.tolist(), strict=True)
        ]
        slots = min(config.num_slots, 1 + max(len(part.groups) for part in parts))
        rows = [
            Row(
                question=problem.question + [processor.start_latent] * part.factor,
                slots=slots,
                used_slots=len(part.groups),
                text=[processor.end_latent, *problem.answer],
                decoded_steps=[],
            )
            for problem, part in zip(problems, parts, strict=True)
        ]
        groups = collate_groups(parts, slots, processor.end_latent)
        return {**collate(rows, keys, config.pad_token_id or 0), **groups}

    def latents_read(self, forward: ForwardPass) -> torch.Tensor:
        """Returns the compressed embeddings, which training reads instead of its latents."""
        assert isinstance(forward, CompressedPass)
        return forward.compressed

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> CompressedPass:
        """Reads question, compressed chain and text in one pass; draws latents, which are not read."""
        compressed = _compressed(reasoner, batch)
        state = reasoner.start(batch["question_ids"], batch["question_mask"])
        state.append(compressed, batch["slot_mask"])
        state.append(reasoner.embed(batch["text_ids"])[:, :-1], batch["text_mask"][:, :-1])
        hidden = state.read()[:, batch["question_ids"].shape[1] - 1 :]
        slots = batch["slot_mask"].shape[1]
        assert reasoner.latent_head is not None
        distribution = reasoner.latent_head(hidden[:, :slots])
        latents = distribution.sample(
            counter_rng.slots(batch["noise_keys"], slots, reasoner.config.hidden_size)
        )
        chain = LatentChain(latents, distribution.mean, distribution.log_variance, batch["slot_mask"])
        return CompressedPass(chain, hidden[:, slots:], hidden[:, :slots], compressed)


def _compressed(reasoner: LatentReasoner, batch: Batch) -> torch.Tensor:
    """Computes Σ embeddings / √n over each slot's n tokens, `[batch, slots, hidden]`.

    The standard deviation of the result is that of one embedding.
    """
    rows, slots = batch["slot_mask"].shape
    embeds, indices = reasoner.embed(batch["group_ids"]), batch["group_slots"]
    total = embeds.new_zeros(rows * slots, embeds.shape[-1]).index_add(0, indices, embeds)
    num_tokens = torch.zeros_like(total[:, :1]).index_add(0, indices, torch.ones_like(embeds[:, :1]))
    return (total / num_tokens.clamp(min=1).sqrt()).unflatten(0, (rows, slots))
