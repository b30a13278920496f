"""`ProblemProcessor` encodes problems as token ids; `collate` makes batches of rows at a curriculum stage.

The layout of a row:

    [left pad] question \\n <|start-latent|> z_1 … z_T <|end-latent|> remaining steps, answer, eos [right pad]

A method without latents has neither the slots nor the two tokens around them. With a chat template the
question is formatted by the template, without the line break, and eos is the template's end-of-turn token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from transformers import PreTrainedTokenizerBase

from latentplan.encoding.chat_template import ChatTemplate
from latentplan.encoding.control_tokens import (
    ControlTokenError,
    ControlTokens,
    first_of,
    marks_of_layout,
    texts_of,
)
from latentplan.encoding.curriculum import split_chain
from latentplan.encoding.tokenizers import END_LATENT, START_LATENT, no_end_token
from latentplan.encoding.unreadable import TooLongError, UnreadableTextError, check_words
from latentplan.problems.problem import Problem

IGNORE = -100
Batch = dict[str, torch.Tensor]
_ANY_QUESTION = "?"


@dataclass(frozen=True)
class EncodedProblem:
    """The token ids of a problem.

    Attributes:
        question: with its line break.
        steps: of the chain of thought.
        answer: with its marker and eos.
    """

    question: list[int]
    steps: list[list[int]]
    answer: list[int]


@dataclass(frozen=True)
class Row:
    """A training row.

    Attributes:
        question: token ids before the latents.
        slots: latent slots of the stage.
        used_slots: how many of them, the first ones, are in use.
        text: token ids after the latents.
        decoded_steps: for each latent step in use, the token ids of the text that it stands for, with eos.
    """

    question: list[int]
    slots: int
    used_slots: int
    text: list[int]
    decoded_steps: list[list[int]]


class ProblemProcessor:
    """Turns problems into token ids with a tokenizer that knows the latent tokens.

    Texts of users and data that contain a control token are refused, see `control_tokens`; step separator,
    answer marker and chat template may contain them.

    Args:
        tokenizer: a tokenizer with the three special tokens and an eos token.
        step_separator: text between the steps of an explicit chain of thought, and before the answer.
        answer_marker: text before the answer.
        chat: the chat template of questions and its end-of-turn token; None for the plain layout.
        max_positions: positions of the model; None where there is no limit.
        reserved: how many of them its latents and the tokens around them take.

    Attributes:
        refuses_unknown_words: whether a text with words that the vocabulary does not have is refused, as the
            server and the commands do; otherwise the model reads its unknown token.

    Raises:
        ControlTokenError: the chat template's system prompt holds a control token.
        ValueError: the tokenizer has no end token, or not the latent tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        step_separator: str = "\n",
        answer_marker: str = "### ",
        chat: ChatTemplate | None = None,
        max_positions: int | None = None,
        reserved: int = 0,
    ):
        self.tokenizer, self.chat = tokenizer, chat
        self.max_positions, self.reserved = max_positions, reserved
        self.refuses_unknown_words = False
        self.answer_marker = answer_marker
        self.separator, self.marker = self._ids(step_separator), self._ids(answer_marker)
        self.eos = tokenizer.eos_token_id if chat is None else chat.end_of_turn
        if self.eos is None:
            raise no_end_token(tokenizer)
        has_start = chat is None and tokenizer.bos_token_id is not None
        self._start = [tokenizer.bos_token_id] if has_start else []
        self.start_latent = _single_token(tokenizer, START_LATENT)
        self.end_latent = _single_token(tokenizer, END_LATENT)
        self.control_tokens = ControlTokens(tokenizer)
        self._marker_control = self.control_tokens.sequence(self.marker)
        layout = self._question_text(_ANY_QUESTION)
        self._question_control = self.control_tokens.sequence(self._ids(layout))
        self._marks: list[str] = []
        if chat is not None:
            prompt = chat.system_prompt or ""
            self.control_tokens.check("system_prompt", prompt, self._ids(prompt))
            self._marks = marks_of_layout(layout.replace(prompt, "") if prompt else layout)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False) if text else []

    def question(self, question: str) -> list[int]:
        """Encodes a question, with the beginning-of-sequence token where the tokenizer has one.

        Raises:
            UnreadableTextError: the question contains a control token or unknown words, or is too long.
        """
        ids = self._ids(self._question_text(question))
        self.check_length(len(self._start) + len(ids))
        self._check_question(question, ids)
        return self._start + ids

    def can_read(self, question: str) -> bool:
        """Whether `question` encodes it."""
        try:
            self.question(question)
        except UnreadableTextError:
            return False
        return True

    def check_length(self, length: int, problem: Problem | None = None) -> None:
        """Raises TooLongError where a question of `length` tokens leaves no position for an answer."""
        if self.room(length) < 1:
            raise TooLongError("the question", length, self.room(0) - 1, problem)

    def room(self, length: int) -> int:
        """Returns the tokens that the model can generate after a question of this length and its latents."""
        return 2**31 if self.max_positions is None else self.max_positions - length - self.reserved

    def _check_question(self, question: str, ids: Sequence[int]) -> None:
        mark = first_of(self._marks, question)
        if mark is not None:
            raise ControlTokenError("the question", mark)
        self.control_tokens.check("the question", question, ids, self._question_control)
        self._check_words("the question", question, ids)

    def steps(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes texts of one or several steps each, with the separator between them.

        Raises:
            UnreadableTextError: a text contains unknown words, or a control token that is not the
                separator's.
        """
        rows, own = self._encoded(texts), set(self.separator)
        for text in texts:
            self.control_tokens.check("a step", text, [index for index in rows[text] if index not in own])
            self._check_words("a step", text, rows[text])
        return [rows[text] for text in texts]

    def _question_text(self, question: str) -> str:
        return question.strip() + "\n" if self.chat is None else self.chat.question(question)

    def __call__(self, problem: Problem) -> EncodedProblem:
        """Encodes a problem. Raises UnreadableTextError as `encode_all`."""
        return self.encode_all([problem])[0]

    def encode_all(self, problems: Sequence[Problem]) -> list[EncodedProblem]:
        """Encodes many problems; each different text is tokenised once, all in one call.

        Raises:
            UnreadableTextError: a question, step or answer contains a control token or unknown words; has the
                problem.
        """
        ids = self._encoded([text for problem in problems for text in self._texts(problem)])
        return [self._assemble(problem, [ids[text] for text in self._texts(problem)]) for problem in problems]

    def _encoded(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Encodes each different text, by text."""
        different = list(dict.fromkeys(texts))
        if not different:
            return {}
        encoded = self.tokenizer(different, add_special_tokens=False, return_attention_mask=False)
        return dict(zip(different, encoded["input_ids"], strict=True))

    def _texts(self, problem: Problem) -> list[str]:
        return [self._question_text(problem.question), *problem.steps, self.answer_marker + problem.answer]

    def _check_words(self, what: str, text: str, ids: Sequence[int]) -> None:
        if self.refuses_unknown_words:
            check_words(self.tokenizer, what, text, ids)

    def unchecked(self, problem: Problem) -> EncodedProblem:
        """Encodes a problem whatever its texts hold: for trials of a tokenizer, which nothing answers."""
        question, *steps, answer = map(self._ids, self._texts(problem))
        return EncodedProblem(question=self._start + question, steps=steps, answer=[*answer, self.eos])

    def _assemble(self, problem: Problem, rows: Sequence[list[int]]) -> EncodedProblem:
        question, *steps, answer = rows
        try:
            self._check_question(problem.question, question)
            for (what, text), ids in zip(texts_of(problem)[1:-1], steps, strict=True):
                self.control_tokens.check(what, text, ids)
                self._check_words(what, text, ids)
            self.control_tokens.check("the answer", problem.answer, answer, self._marker_control)
            self._check_words("the answer", problem.answer, answer)
        except UnreadableTextError as error:
            error.problem = problem
            raise
        return EncodedProblem(question=self._start + question, steps=steps, answer=[*answer, self.eos])

    def row(
        self,
        encoded: EncodedProblem,
        *,
        stage: int,
        max_latent_steps: int,
        latents_per_step: int,
        fixed: bool,
    ) -> Row:
        """Lays a problem out at a curriculum stage.

        Args:
            encoded: the problem.
            stage: of the curriculum; the first `stage` steps are latent.
            max_latent_steps: latent steps at most, K.
            latents_per_step: latents of a step, c.
            fixed: whether every slot of the stage is in use.
        """
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
        """Lays a problem out as question and answer only (No-CoT)."""
        return Row(encoded.question, 0, 0, encoded.answer, [])

    def written(self, steps: Iterable[list[int]]) -> list[int]:
        """Joins the steps of an explicit chain of thought, each followed by the separator."""
        return [token for step in steps for token in step + self.separator]

    def marker_length(self, encoded: EncodedProblem) -> int:
        """Counts the tokens of the marker at the beginning of the answer."""
        pairs = zip(self.marker, encoded.answer, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _join(self, steps: Iterable[list[int]]) -> list[int]:
        ids: list[int] = []
        for step in steps:
            ids += (self.separator if ids else []) + step
        return ids


def pad_left(rows: Sequence[Sequence[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads rows of ids on the left; returns ids and mask, `[batch, longest]`."""
    width = max(map(len, rows))
    ids = torch.tensor([[value] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Pads rows of ids on the right; returns `[batch, longest]`."""
    width = max(map(len, rows), default=0)
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows], dtype=torch.long).reshape(
        len(rows), width
    )


def collate(rows: Sequence[Row], noise_keys: Sequence[int] | torch.Tensor, pad_token_id: int) -> Batch:
    """Collates rows of one curriculum stage to a batch.

    Args:
        rows: of the batch.
        noise_keys: one for each row.
        pad_token_id: the padding.

    Returns:
        question_ids, question_mask: `[batch, question]`, left-padded; `<|start-latent|>` where slots follow.
        slot_mask: `[batch, slots]`, 1 where a slot is in use.
        text_ids, text_mask: `[batch, text]`, right-padded, the text after the slots, with `<|end-latent|>`.
        labels: `[batch, text]`, `text_ids` where a token is learned, else -100.
        label_indices: `[labelled]`, their indices in the flattened `[batch · text]`.
        step_ids, step_labels: `[pairs, step]`, each existing (row, step) pair's text with eos, right-padded.
        step_label_indices: `[step tokens]`, the indices of tokens in the flattened `[pairs · step]`.
        step_row, step_index: `[pairs]`, the indices of a pair's row and latent step.
        noise_keys: `[batch]`, each row's key of the counter-based random generator.

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
        "label_indices": _labelled(labels),
        "step_ids": pad_right(step_texts, pad_token_id),
        "step_labels": step_labels,
        "step_label_indices": _labelled(step_labels),
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
