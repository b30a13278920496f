"""CODI (arXiv:2502.21074): self-distillation of an explicit chain of thought into latents.

One model is teacher and student. The teacher reads question, explicit chain and answer; the student reads
question, latents and answer. At the last token before the answer proper, the end of the answer marker, the
hidden states of every layer of the student are regressed on those of the teacher. As in the paper, the
teacher's chain lacks its last step, because that step's result is the answer, which the teacher would only
copy.
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
    """Collects the input of each layer at one column of each row, `[batch, hidden]`, in a list.

    The first entry is the embedding, each other one the output of the layer before it. The output of the last
    layer, after the final norm, is what the pass itself returns. Gradients flow through all of them.

    Args:
        backbone: that makes one pass within the context.
        columns: `[batch]`, counted from the first column of that pass.
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
    """The student's pass and the teacher's.

    Attributes:
        teacher_hidden: the hidden state before each of the teacher's tokens, `[batch, teacher, hidden]`.
        student_states, teacher_states: the hidden states of all layers before the answer,
            `[batch, layers + 1, hidden]`.
    """

    teacher_hidden: torch.Tensor
    student_states: torch.Tensor
    teacher_states: torch.Tensor


def teacher_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums the cross-entropy of the teacher's chain and answer over their tokens: `[1]`."""
    assert isinstance(forward, TaughtPass)
    indices = batch["teacher_indices"]
    hidden, labels = at_indices(forward.teacher_hidden, indices), at_indices(batch["teacher_ids"], indices)
    return -token_log_probs(model.reasoner, hidden, labels).sum()[None]


def num_teacher_tokens(batch: Batch) -> torch.Tensor:
    """Counts the tokens of the teacher's chains and answers: `[1]`."""
    return batch["teacher_mask"].sum()[None]


def distillation_loss_sum(model: TrainableModel, forward: ForwardPass, batch: Batch) -> torch.Tensor:
    """Sums the distillation loss over the rows: `[1]`.

    Of a row it is smooth L1 between student and detached teacher, the mean over layers and dimensions. Each
    layer's value is divided by the standard deviation of the teacher's state over its dimensions.
    """
    assert isinstance(forward, TaughtPass)
    student, teacher = forward.student_states.float(), forward.teacher_states.detach().float()
    distance = F.smooth_l1_loss(student, teacher, reduction="none").mean(dim=-1)
    return (distance / teacher.std(dim=-1).clamp(min=1e-6)).mean(dim=-1).sum()[None]


class CODI(Method):
    """Projected hidden states as latents, distilled from an explicit chain of thought, without curriculum."""

    name = "codi"
    latent_head = "projected_norm"
    objectives: ClassVar[dict[str, float]] = {"text": 1.0, "teacher": 1.0, "distillation": 1.0}
    own_objectives: ClassVar[dict[str, Objective]] = {
        "teacher": Objective(teacher_loss_sum, num_teacher_tokens),
        "distillation": Objective(distillation_loss_sum, num_rows),
    }

    def stages(self, max_latent_steps: int) -> list[int]:
        """Returns stage K alone: all steps are latent from the start."""
        return [max_latent_steps]

    def batch(self, processor: ProblemProcessor, problems: Sequence[EncodedProblem], *args: object) -> Batch:
        """Lays problems out as every method does, and adds the teacher's text.

        Returns:
            teacher_ids, teacher_mask: `[batch, teacher]`, steps but the last, answer, eos; right-padded.
            teacher_indices: `[tokens]`, indices of these in the flattened `[batch · teacher]`.
            text_start, teacher_start: `[batch]`, the column of the token after the answer marker, in the
                text of the student and of the teacher.
        """
        batch = super().batch(processor, problems, *args)  # type: ignore[arg-type]
        rows = [processor.written(problem.steps[:-1]) + problem.answer for problem in problems]
        mask = pad_right([[1] * len(row) for row in rows], 0)
        rest = torch.tensor([len(each.answer) - processor.marker_length(each) for each in problems])
        return {
            **batch,
            "teacher_ids": pad_right(rows, 0),
            "teacher_mask": mask,
            "teacher_indices": mask_indices(mask),
            "text_start": batch["text_mask"].sum(dim=1) - rest,
            "teacher_start": mask.sum(dim=1) - rest,
        }

    def tokens_read(self, batch: Batch) -> int:
        """Counts the student's and the teacher's positions; the teacher reads the question again."""
        return super().tokens_read(batch) + int(batch["question_mask"].sum())

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> TaughtPass:
        """Runs the student's passes, then the teacher's one."""
        state = reasoner.start(batch["question_ids"], batch["question_mask"])
        chain = unroll(reasoner, state, batch["slot_mask"], batch["noise_keys"])
        text, student = _read(reasoner, state, "text", batch)
        end = batch["question_ids"].shape[1] - min(1, batch["slot_mask"].shape[1])  # without <|start-latent|>
        question = reasoner.start(batch["question_ids"][:, :end], batch["question_mask"][:, :end])
        teacher_text, teacher = _read(reasoner, question, "teacher", batch)
        return TaughtPass(chain, text, teacher_text, student, teacher)


def _read(
    reasoner: LatentReasoner, state: DecodingState, who: str, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the hidden states before each token of a text, and those of every layer before its answer.

    Args:
        reasoner: the model.
        state: in which the question, and the latents of the student, are read or pending.
        who: 'text' for the student's text, 'teacher' for the teacher's.
        batch: that holds it.

    Returns:
        `[batch, tokens, hidden]` and `[batch, layers + 1, hidden]`.
    """
    start, embeds = batch[f"{who}_start"], reasoner.embed(batch[f"{who}_ids"])
    with layer_inputs(reasoner.backbone, state.pending.shape[1] - 1 + start) as states:
        hidden = read_text(state, embeds, batch[f"{who}_mask"])
    last = hidden[torch.arange(len(start), device=start.device), start]
    return hidden, torch.stack([*states, last], dim=1)
