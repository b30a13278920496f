"""`Trajectories`: what a rollout leaves behind, enough to score it again under any policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from latentplan.modeling.efficiency.chunked_logits import mask_indices

_INPUTS = ("input_ids", "input_weights")


@dataclass
class Trajectories:
    """Rollouts of a batch of questions: each has `draws` chains of latents, each chain `answers` answers.

    The samples of a question are neighbours: trajectory = (question · draws + draw) · answers + answer.

    Attributes:
        question_ids, question_mask: `[questions, question]`, left-padded.
        chain_keys: `[chains]`, keys of the counter-based noise.
        latents: `[chains, slots, hidden]`, also the latent that a stop was decided on.
        slot_mask: `[chains, slots]`, 1 where a slot is in use.
        stop_mask: `[chains, steps]`, 1 where the stop head decided.
        stops: `[chains, steps]`, 1 where it said stop.
        latent_log_probs: `[chains, slots]`, summed over dimensions; 0 for unused slots and point latents.
        stop_log_probs: `[chains, steps]`, of the decision taken.
        answer_ids, answer_mask, answer_log_probs: `[chains · answers, tokens]`, eos included.
        finished: `[chains · answers]`, whether eos was written.
        input_ids, input_weights: `[chains · answers, tokens, width]`, the mixture of tokens that was read
            after each token; None where the tokens themselves were read.
    """

    question_ids: torch.Tensor
    question_mask: torch.Tensor
    chain_keys: torch.Tensor
    latents: torch.Tensor
    slot_mask: torch.Tensor
    stop_mask: torch.Tensor
    stops: torch.Tensor
    latent_log_probs: torch.Tensor
    stop_log_probs: torch.Tensor
    answer_ids: torch.Tensor
    answer_mask: torch.Tensor
    answer_log_probs: torch.Tensor
    finished: torch.Tensor
    input_ids: torch.Tensor | None = None
    input_weights: torch.Tensor | None = None

    @property
    def draws(self) -> int:
        """Chains of latents for each question."""
        return self.latents.shape[0] // self.question_ids.shape[0]

    @property
    def answers(self) -> int:
        """Answers for each chain of latents."""
        return self.answer_ids.shape[0] // self.latents.shape[0]

    @property
    def num_latents(self) -> torch.Tensor:
        """Latent tokens used, `[chains · answers]`."""
        return self.slot_mask.sum(dim=1).repeat_interleave(self.answers)

    @property
    def num_tokens(self) -> torch.Tensor:
        """Latents used and answer tokens before eos, `[chains · answers]`: the length that papers report."""
        return self.num_latents + self.answer_mask.sum(dim=1) - self.finished.long()

    @property
    def answer_places(self) -> torch.Tensor:
        """Where `answer_mask` is set, `[n]`, counted through all rows."""
        return mask_indices(self.answer_mask)

    def select(self, questions: slice) -> Trajectories:
        """Returns the trajectories of a range of questions, with columns that none of them uses cut off."""
        rows = {"question_ids": 1, "question_mask": 1}
        by_answer = {"answer_ids", "answer_mask", "answer_log_probs", "finished", *_INPUTS}
        chosen: dict[str, Any] = {}
        for item in fields(self):
            if getattr(self, item.name) is None:
                continue
            times = rows.get(item.name, self.draws * (self.answers if item.name in by_answer else 1))
            start, stop, _ = questions.indices(self.question_ids.shape[0])
            chosen[item.name] = getattr(self, item.name)[start * times : stop * times]
        return Trajectories(**chosen)._trimmed()

    def _trimmed(self) -> Trajectories:
        """Drops the answer tokens and the latent steps that no trajectory has come to."""
        tokens = max(1, int(self.answer_mask.sum(dim=1).max()))
        steps = self.stop_mask.shape[1]
        size = self.slot_mask.shape[1] // max(1, steps)
        if steps:
            reached = self.slot_mask[:, ::size] | self.stop_mask
            steps = int(reached.sum(dim=1).max())
        return replace(
            self,
            latents=self.latents[:, : steps * size],
            slot_mask=self.slot_mask[:, : steps * size],
            latent_log_probs=self.latent_log_probs[:, : steps * size],
            stop_mask=self.stop_mask[:, :steps],
            stops=self.stops[:, :steps],
            stop_log_probs=self.stop_log_probs[:, :steps],
            answer_ids=self.answer_ids[:, :tokens],
            answer_mask=self.answer_mask[:, :tokens],
            answer_log_probs=self.answer_log_probs[:, :tokens],
            **self._inputs(lambda values: values[:, :tokens]),
        )

    def _inputs(self, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
        """Returns the inputs that were read, changed; nothing where they were the tokens."""
        found = {name: getattr(self, name) for name in _INPUTS}
        return {name: change(values) for name, values in found.items() if values is not None}

    def padded(self, slots: int, tokens: int) -> Trajectories:
        """Adds unused columns up to `slots` latents and `tokens` answer tokens, which change no result.

        Scoring then takes equally many passes wherever the sizes are equal.
        """
        size = self.slot_mask.shape[1] // max(1, self.stop_mask.shape[1])
        wide = {"latents": slots, "slot_mask": slots, "latent_log_probs": slots}
        steps = slots // size if size else 0
        wide |= {"stop_mask": steps, "stops": steps, "stop_log_probs": steps}
        wide |= {"answer_ids": tokens, "answer_mask": tokens, "answer_log_probs": tokens}
        return replace(
            self,
            **{name: widened(getattr(self, name), width) for name, width in wide.items()},
            **self._inputs(lambda values: widened(values, tokens)),
        )

    @classmethod
    def joined(
        cls,
        parts: Sequence[Trajectories],
        question_ids: torch.Tensor,
        question_mask: torch.Tensor,
        pad_token_id: int,
    ) -> Trajectories:
        """Joins trajectories of consecutive chains of these questions."""
        if len(parts) == 1:
            return parts[0]
        slots = max(part.slot_mask.shape[1] for part in parts)
        tokens = max(part.answer_mask.shape[1] for part in parts)
        wide = [part.padded(slots, tokens) for part in parts]
        values = {
            item.name: torch.cat([getattr(part, item.name) for part in wide])
            for item in fields(cls)
            if item.name not in ("question_ids", "question_mask") and getattr(wide[0], item.name) is not None
        }
        values["answer_ids"] = values["answer_ids"].masked_fill(values["answer_mask"] == 0, pad_token_id)
        return cls(question_ids=question_ids, question_mask=question_mask, **values)


def widened(columns: torch.Tensor, width: int) -> torch.Tensor:
    """Returns `[rows, n, ...]` with zeros after the n-th column up to `width`."""
    missing = width - columns.shape[1]
    if missing <= 0:
        return columns
    return torch.cat([columns, columns.new_zeros(columns.shape[0], missing, *columns.shape[2:])], dim=1)
