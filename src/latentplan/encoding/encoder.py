"""Problem to token ids, and token ids at a curriculum stage to the rows and batches that the model takes.

The layout of a row:

    [left pad] question \\n <|start-latent|> z_1 … z_T <|end-latent|> remaining steps, answer, eos [right pad]

A method without latents has neither the slots nor the two tokens around them. With a chat template the
question is as the template writes it, without the line break, and eos is what the template ends turns with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from transformers import PreTrainedTokenizerBase

from latentplan.encoding.chat import ChatTemplate
from latentplan.encoding.curriculum import split_chain
from latentplan.encoding.special_tokens import END_LATENT, START_LATENT, no_end_token
from latentplan.problems.problem import Problem

IGNORE = -100
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EncodedProblem:
    """Token ids: the question with its line break, each step, and the answer with its marker and eos."""

    question: list[int]
    steps: list[list[int]]
    answer: list[int]


@dataclass(frozen=True)
class Row:
    """One training row: `slots` are latent slots of the stage, of which the first `used_slots` are in use.

    `decoded_steps` holds, for each latent step in use, the ids of the text that it stands for, with eos.
    """

    question: list[int]
    slots: int
    used_slots: int
    text: list[int]
    decoded_steps: list[list[int]]


class Encoder:
    """Turns problems into token ids with a tokenizer that knows the latent tokens.

    Args:
        tokenizer: a tokenizer with the three special tokens and an eos token.
        step_separator: text between written steps, and between them and the answer.
        answer_marker: text before the answer.
        chat: how questions are written, and with what an answer ends; None for the plain layout.

    Raises:
        ValueError: the tokenizer has no end token, or not the latent tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        step_separator: str = "\n",
        answer_marker: str = "### ",
        chat: ChatTemplate | None = None,
    ):
        self.tokenizer, self.chat = tokenizer, chat
        self.answer_marker = answer_marker
        self.separator, self.marker = self._ids(step_separator), self._ids(answer_marker)
        self.eos = tokenizer.eos_token_id if chat is None else chat.end_of_turn
        if self.eos is None:
            raise no_end_token(tokenizer)
        has_start = chat is None and tokenizer.bos_token_id is not None
        self._start = [tokenizer.bos_token_id] if has_start else []
        self.start_latent = _single_token(tokenizer, START_LATENT)
        self.end_latent = _single_token(tokenizer, END_LATENT)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False) if text else []

    def question(self, question: str) -> list[int]:
        """The question's ids, with the beginning-of-sequence token where the tokenizer has one."""
        return self._start + self._ids(self._question_text(question))

    def _question_text(self, question: str) -> str:
        return question.strip() + "\n" if self.chat is None else self.chat.question(question)

    def __call__(self, problem: Problem) -> EncodedProblem:
        """All ids of a problem."""
        return self.encode_all([problem])[0]

    def encode_all(self, problems: Sequence[Problem]) -> list[EncodedProblem]:
        """All ids of many problems; each different text is tokenised once, all in one call."""
        texts = dict.fromkeys(text for problem in problems for text in self._texts(problem))
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
        ids = dict(zip(texts, encoded["input_ids"], strict=True))
        return [self._assemble(problem, ids) for problem in problems]

    def _texts(self, problem: Problem) -> Iterator[str]:
        yield self._question_text(problem.question)
        yield from problem.steps
        yield self.answer_marker + problem.answer

    def _assemble(self, problem: Problem, ids: dict[str, list[int]]) -> EncodedProblem:
        return EncodedProblem(
            question=self._start + ids[self._question_text(problem.question)],
            steps=[ids[step] for step in problem.steps],
            answer=[*ids[self.answer_marker + problem.answer], self.eos],
        )

    def row(
        self,
        encoded: EncodedProblem,
        *,
        stage: int,
        max_latent_steps: int,
        latents_per_step: int,
        fixed: bool,
    ) -> Row:
        """Lays a problem out at a curriculum stage; `fixed` uses every slot of the stage."""
        groups, rest = split_chain(len(encoded.steps), stage, max_latent_steps)
        slots = latents_per_step * min(stage, max_latent_steps)
        frame = [self.start_latent] if slots else []
        end = [self.end_latent] if slots else []
        return Row(
            question=encoded.question + frame,
            slots=slots,
            used_slots=slots if fixed else latents_per_step * len(groups),
            text=end + self.written([encoded.steps[step] for step in rest]) + encoded.answer,
            decoded_steps=[[*self._join(encoded.steps[g] for g in group), self.eos] for group in groups],
        )

    def row_without_steps(self, encoded: EncodedProblem) -> Row:
        """Question and answer only (No-CoT)."""
        return Row(encoded.question, 0, 0, encoded.answer, [])

    def written(self, steps: Iterable[list[int]]) -> list[int]:
        """Steps as they stand before an answer."""
        return [token for step in steps for token in step + self.separator]

    def marker_length(self, encoded: EncodedProblem) -> int:
        """Tokens of the answer that are its marker, and no part of what is answered."""
        pairs = zip(self.marker, encoded.answer, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _join(self, steps: Iterable[list[int]]) -> list[int]:
        ids: list[int] = []
        for step in steps:
            ids += (self.separator if ids else []) + step
        return ids


def pad_left(rows: Sequence[Sequence[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids to `[batch, longest]` ids and mask, padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[value] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of ids to `[batch, longest]`, padded on the right."""
    width = max(map(len, rows), default=0)
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows], dtype=torch.long).reshape(
        len(rows), width
    )


def collate(rows: Sequence[Row], noise_keys: Sequence[int] | torch.Tensor, pad_token_id: int) -> Batch:
    """Rows of one stage to a batch.

    Returns:
        question_ids, question_mask: `[batch, question]`, left-padded; `<|start-latent|>` where slots follow.
        slot_mask: `[batch, slots]`, 1 where a slot is in use.
        text_ids, text_mask: `[batch, text]`, right-padded, what follows the slots, with `<|end-latent|>`.
        labels: `[batch, text]`, `text_ids` where a token is to be learned, else -100.
        label_places: `[labelled]`, where these are, counted through all rows.
        step_ids, step_labels: `[pairs, step]`, each existing (row, step) pair's text with eos, right-padded.
        step_places: `[step tokens]`, where `step_labels` holds tokens, counted through all pairs.
        step_row, step_index: `[pairs]`, which row and which latent step a pair is.
        noise_keys: `[batch]`, the counter-based generator's key of each row.

    Raises:
        ValueError: the rows are of different stages.
    """
    slots = {row.slots for row in rows}
    if len(slots) != 1:
        raise ValueError(f"a batch holds rows of one curriculum stage, got rows with {sorted(slots)} slots")
    num_slots = slots.pop()
    question_ids, question_mask = pad_left([row.question for row in rows], pad_token_id)
    forced = 1 if num_slots else 0
    labels = pad_right([[IGNORE] * forced + row.text[forced:] for row in rows], IGNORE)
    pairs = [
        (index, step, ids) for index, row in enumerate(rows) for step, ids in enumerate(row.decoded_steps)
    ]
    step_texts = [ids for _, _, ids in pairs]
    step_labels = pad_right(step_texts, IGNORE)
    return {
        "question_ids": question_ids,
        "question_mask": question_mask,
        "slot_mask": torch.tensor(
            [[1] * row.used_slots + [0] * (num_slots - row.used_slots) for row in rows], dtype=torch.long
        ).reshape(len(rows), num_slots),
        "text_ids": pad_right([row.text for row in rows], pad_token_id),
        "text_mask": pad_right([[1] * len(row.text) for row in rows], 0),
        "labels": labels,
        "label_places": _labelled(labels),
        "step_ids": pad_right(step_texts, pad_token_id),
        "step_labels": step_labels,
        "step_places": _labelled(step_labels),
        "step_row": torch.tensor([index for index, _, _ in pairs], dtype=torch.long),
        "step_index": torch.tensor([step for _, step, _ in pairs], dtype=torch.long),
        "noise_keys": torch.as_tensor(noise_keys, dtype=torch.long),
    }


def _labelled(labels: torch.Tensor) -> torch.Tensor:
    return (labels != IGNORE).flatten().nonzero()[:, 0]


def _single_token(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    index = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(index, int) or index == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no {token} token: call add_special_tokens(tokenizer) first")
    return index
