"""CODI (arXiv:2502.21074): one model writes the chain as its own teacher and skips it as its student.

The student reads question, latents, answer; the teacher question, written steps, answer. Where the answer is
about to be written, after the marker, every layer of the student is drawn to the same layer of the teacher.
As in the paper the teacher's last step is left out: its result is the answer, which would only be copied.

What every layer of a backbone knows at one position of each row (CODI distils it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor, pad_right
from latentplan.methods.base import Method
from latentplan.methods.losses import ForwardPass, Objective, TrainableModel, num_rows
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.chunked_logits import at_indices, mask_indices, token_log_probs
from latentplan.modeling.efficiency.gradient_checkpointing import decoder_layers
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import read_text, unroll


@contextmanager
def layer_inputs(backbone: PreTrainedModel, columns: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Inside, a pass appends the input of each layer at one column of each row, `[batch, hidden]`.

    The first entry is the embedding, every other the output of the layer before it; what comes out of the
    last layer, after the final norm, is what the pass returns. Gradients flow through.

    Args:
        backbone: which reads once inside the block.
        columns: `[batch]`, counted from the first column that is read.
    """
    rows = torch.arange(columns.shape[0], device=columns.device)
    found: list[torch.Tensor] = []

    def keep(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        found.append(hidden[rows, columns])

    layers = decoder_layers(backbone)
    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class TaughtPass(ForwardPass):
    """A student's pass beside its teacher's.

    Attributes:
        teacher_hidden: the hidden state before each of the teacher's tokens, `[batch, teacher, hidden]`.
        student_states, teacher_states: before the answer, `[batch, layers + 1, hidden]`.
    """

    teacher_hidden: torch.Tensor
    student_states: torch.Tensor
    teacher_states: torch.Tensor


def teacher_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Summed cross-entropy of the teacher's steps and answer."""
    assert isinstance(forward, TaughtPass)
    where = batch["teacher_indices"]
    hidden, labels = at_indices(forward.teacher_hidden, where), at_indices(batch["teacher_ids"], where)
    return -token_log_probs(model.reasoner, hidden, labels).sum()[None]


def num_teacher_tokens(batch: Batch) -> torch.Tensor:
    """Tokens that the teacher writes."""
    return batch["teacher_mask"].sum()[None]


def distillation_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Smooth L1 between student and detached teacher, the mean over layers and dimensions, summed over rows.

    Each layer's difference is divided by the deviation of the teacher's state over its dimensions.
    """
    assert isinstance(forward, TaughtPass)
    student, teacher = forward.student_states.float(), forward.teacher_states.detach().float()
    distance = F.smooth_l1_loss(student, teacher, reduction="none").mean(dim=-1)
    return (distance / teacher.std(dim=-1).clamp(min=1e-6)).mean(dim=-1).sum()[None]


class CODI(Method):
    """Projected hidden states as latents, distilled from a written chain; no curriculum."""

    name = "codi"
    latent_head = "projected_norm"
    objectives: ClassVar[dict[str, float]] = {"text": 1.0, "teacher": 1.0, "distillation": 1.0}
    own_objectives: ClassVar[dict[str, Objective]] = {
        "teacher": Objective(teacher_loss_sum, num_teacher_tokens),
        "distillation": Objective(distillation_loss_sum, num_rows),
    }

    def stages(self, max_latent_steps: int) -> list[int]:
        """All latents from the start."""
        return [max_latent_steps]

    def batch(self, processor: ProblemProcessor, problems: Sequence[EncodedProblem], *args: object) -> Batch:
        """As of every method, and what the teacher writes.

        teacher_ids, teacher_mask: `[batch, teacher]`, steps but the last, answer, eos; right-padded.
        teacher_indices: `[tokens]`, where these are in the flattened `[batch · teacher]`.
        text_start, teacher_start: `[batch]`, the token after the answer's marker, in the text of each.
        """
        batch = super().batch(processor, problems, *args)  # type: ignore[arg-type]
        rows = [processor.written(problem.steps[:-1]) + problem.answer for problem in problems]
        mask = pad_right([[1] * len(row) for row in rows], 0)
        left = torch.tensor([len(each.answer) - processor.marker_length(each) for each in problems])
        return {
            **batch,
            "teacher_ids": pad_right(rows, 0),
            "teacher_mask": mask,
            "teacher_indices": mask_indices(mask),
            "text_start": batch["text_mask"].sum(dim=1) - left,
            "teacher_start": mask.sum(dim=1) - left,
        }

    def tokens_read(self, batch: Batch) -> int:
        """The teacher reads the question again."""
        return super().tokens_read(batch) + int(batch["question_mask"].sum())

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> TaughtPass:
        """The student's passes, then the teacher's one."""
        state = reasoner.start(batch["question_ids"], batch["question_mask"])
        chain = unroll(reasoner, state, batch["slot_mask"], batch["noise_keys"])
        text, student = _read(reasoner, state, "text", batch)
        end = batch["question_ids"].shape[1] - min(1, batch["slot_mask"].shape[1])  # without <|start-latent|>
        question = reasoner.start(batch["question_ids"][:, :end], batch["question_mask"][:, :end])
        written, teacher = _read(reasoner, question, "teacher", batch)
        return TaughtPass(chain, text, written, student, teacher)


def _read(
    reasoner: LatentReasoner, state: DecodingState, who: str, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states before each token of a text, and those of every layer before its answer."""
    start, embeds = batch[f"{who}_start"], reasoner.embed(batch[f"{who}_ids"])
    with layer_inputs(reasoner.backbone, state.pending.shape[1] - 1 + start) as states:
        hidden = read_text(state, embeds, batch[f"{who}_mask"])
    last = hidden[torch.arange(len(start), device=start.device), start]
    return hidden, torch.stack([*states, last], dim=1)
