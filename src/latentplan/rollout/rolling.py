"""A batch without beginning or end: rows join while others are being written, and leave when they are done.

`engine.generate` takes questions that all start and are waited for together; a server has them come one by
one, each with its own temperatures and length. Here every pass takes each row one position further, wherever
it is: a latent, `<|end-latent|>` or a token. A row's noise follows from its key as in `generate`, masked
columns are invisible and positions count from each row's own beginning, so a row is the trajectory that
`generate` gives it, whoever is beside it (up to the rounding of sums over more or fewer columns).

What is known to be slower than `generate`: no captured passes on a GPU, one wait for the device a pass, and
a chain that fills all its slots takes `<|end-latent|>` in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch

from latentplan.encoding.encoder import pad_left
from latentplan.modeling import noise
from latentplan.modeling.context import Context
from latentplan.modeling.gathering import gathered
from latentplan.modeling.noise import Stream
from latentplan.modeling.prefill import read_question
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.rollout.engine import trajectory_keys
from latentplan.rollout.sampling import Sampling, draw

_WORTH_LEAVING = 8
"""Rows below which a smaller batch saves nothing."""


@dataclass(eq=False)
class Row:
    """One trajectory on its way.

    Attributes:
        question_ids: with `<|start-latent|>` at the end for latent models.
        key: of its noise.
        sampling: its own temperatures and number of answer tokens.
        max_tokens: latents and answer tokens together at most; None for no such limit.
        latents: those in use, `[hidden]` each.
        answer_ids: tokens written, eos included.
        closed: whether the chain of latents has ended, and tokens follow.
        finished: whether eos was written.
        ended: whether nothing more will come; may be set from outside to have the row leave.
    """

    question_ids: list[int]
    key: int
    sampling: Sampling
    max_tokens: int | None = None
    latents: list[torch.Tensor] = field(default_factory=list)
    answer_ids: list[int] = field(default_factory=list)
    closed: bool = False
    finished: bool = False
    ended: bool = False

    @property
    def full(self) -> bool:
        """Whether no further latent or token may come."""
        together = len(self.latents) + len(self.answer_ids)
        return len(self.answer_ids) >= self.sampling.max_new_tokens or (
            self.max_tokens is not None and together >= self.max_tokens
        )


def rows_of(question_ids: list[int], seed: int, problem: int, samples: int, sampling: Sampling) -> list[Row]:
    """The rows of a question's samples, with the keys that `generate` gives them."""
    if sampling.temperature == sampling.latent_temperature == 0:
        return [Row(question_ids, 0, sampling) for _ in range(samples)]  # nothing is drawn
    keys = trajectory_keys(seed, torch.tensor([problem]), samples)
    return [Row(question_ids, key, sampling) for key in keys.tolist()]


class RollingBatch:
    """Rows that are computed together.

    Args:
        model: the policy.

    Attributes:
        rows: those that go on, and some that have ended and not left yet.
    """

    def __init__(self, model: LatentReasoner):
        self.model = model
        self.rows: list[Row] = []
        self._context: Context | None = None
        eos = model.config.eos_token_id
        self._eos = frozenset([eos] if isinstance(eos, int) else eos or [])

    @property
    def running(self) -> int:
        """Rows that go on."""
        return sum(not row.ended for row in self.rows)

    @torch.no_grad()
    def join(self, rows: Sequence[Row]) -> None:
        """Reads the questions of new rows, in one pass, and takes each row's first decision."""
        for row in rows:
            row.closed = not self.model.config.num_slots
        questions = {tuple(row.question_ids): None for row in rows}
        places = {question: place for place, question in enumerate(questions)}
        ids, mask = pad_left(list(questions), cast(int, self.model.config.pad_token_id))
        device = self.model.device
        context = self.model.start(ids.to(device), mask.to(device))
        hidden = read_question(context)
        if len(questions) < len(rows):
            which = torch.tensor([places[tuple(row.question_ids)] for row in rows], device=device)
            context, hidden = context.selected(which), hidden[which]
        self._advance(context, list(rows), hidden)
        self._take([(self._context, self.rows), (context, list(rows))])

    @torch.no_grad()
    def step(self) -> None:
        """Takes every row one position further."""
        if self._context is None:
            return
        hidden = self._context.read()[:, -1]
        self._advance(self._context, self.rows, hidden)
        running = self.running
        if not running or (len(self.rows) >= _WORTH_LEAVING and 2 * running <= len(self.rows)):
            self._take([(self._context, self.rows)])

    def _take(self, parts: list[tuple[Context | None, list[Row]]]) -> None:
        """Goes on with those rows of the parts that have not ended."""
        chosen = []
        for context, rows in parts:
            going = [place for place, row in enumerate(rows) if not row.ended]
            if context is not None and going:
                chosen.append((context, torch.tensor(going, device=context.mask.device)))
        self.rows = [row for _, rows in parts for row in rows if not row.ended]
        alone = len(chosen) == 1 and len(chosen[0][1]) == chosen[0][0].mask.shape[0]
        self._context = chosen[0][0] if alone else gathered(chosen) if chosen else None

    def _advance(self, context: Context, rows: list[Row], hidden: torch.Tensor) -> None:
        """Decides each row's next input from `hidden` `[rows, hidden]`; it waits in the context then."""
        slots = self.model.config.num_slots
        thinking: list[int] = []
        closing: list[int] = []
        writing: list[int] = []
        for place, row in enumerate(rows):
            if not row.ended:
                full = len(row.latents) == slots
                (writing if row.closed else closing if full else thinking).append(place)
        inputs = hidden.new_zeros(hidden.shape, dtype=torch.float32)
        if thinking:
            closing += self._think(rows, thinking, hidden, inputs)
        if closing:
            inputs[closing] = self.model.end_latent(len(closing))[0][:, 0].float()
            for place in closing:
                rows[place].closed = True
        if writing:
            self._write(rows, writing, hidden, inputs)
        mask = torch.tensor([[int(not row.ended)] for row in rows], device=hidden.device)
        context.push(inputs.unsqueeze(1), mask)

    def _think(
        self, rows: list[Row], places: list[int], hidden: torch.Tensor, inputs: torch.Tensor
    ) -> list[int]:
        """A latent for each row at `places`; the places of those that stop instead."""
        those, size = [rows[place] for place in places], self.model.config.latents_per_step
        latents = self._draw_latents(those, hidden[places])
        asked = [index for index, row in enumerate(those) if len(row.latents) % size == 0]
        stopping = set()
        if asked and self.model.stop_head is not None:
            steps = [len(those[index].latents) // size for index in asked]
            decisions = self._draw(
                self.model.stop_head(latents[asked]),
                [those[index] for index in asked],
                Stream.STOP,
                (0, steps),
            )
            stopping = {index for index, stop in zip(asked, decisions.tolist(), strict=True) if stop}
        for index, row in enumerate(those):
            if index not in stopping:
                row.latents.append(latents[index])
                inputs[places[index]] = latents[index]
                row.ended = row.full
        return [places[index] for index in stopping]

    def _draw_latents(self, rows: list[Row], hidden: torch.Tensor) -> torch.Tensor:
        """The next latent `[rows, hidden]` of each row."""
        distribution = self.model.latent_head(hidden)  # type: ignore[misc]
        scales = [row.sampling.latent_temperature for row in rows]
        if distribution.log_variance is None or not any(scales):
            return distribution.mean
        keys = self._keys(rows, Stream.LATENT, ([len(row.latents) for row in rows],))
        epsilon = noise.gaussian(keys, hidden.shape[1])
        scale = torch.tensor(scales, device=keys.device).unsqueeze(1)
        return distribution.mean + scale * torch.exp(0.5 * distribution.log_variance) * epsilon

    def _write(self, rows: list[Row], places: list[int], hidden: torch.Tensor, inputs: torch.Tensor) -> None:
        """A token for each row at `places`."""
        those = [rows[place] for place in places]
        positions = [len(row.answer_ids) for row in those]
        tokens = self._draw(self.model.logits(hidden[places]), those, Stream.TOKEN, (0, 0, positions))
        inputs[places] = self.model.embed(tokens).float()
        for row, token in zip(those, tokens.tolist(), strict=True):
            row.answer_ids.append(token)
            row.finished = token in self._eos
            row.ended = row.finished or row.full

    def _draw(
        self, logits: torch.Tensor, rows: list[Row], stream: Stream, indices: tuple[int | list[int], ...]
    ) -> torch.Tensor:
        """Draws one class of `[rows, classes]` for each row, at the row's own temperature."""
        temperatures = [row.sampling.temperature for row in rows]
        if not any(temperatures):
            return draw(logits, None, 0.0)
        keys = self._keys(rows, stream, indices)
        return draw(logits, keys, torch.tensor(temperatures, device=keys.device))

    def _keys(self, rows: list[Row], stream: Stream, indices: tuple[int | list[int], ...]) -> torch.Tensor:
        """Derives the key `[rows]` of each row; an index is one number for all rows, or one for each."""
        device = self.model.device
        keys = torch.tensor([row.key for row in rows], device=device)
        each = (torch.tensor(index, device=device) if isinstance(index, list) else index for index in indices)
        return noise.derive(keys, stream, *each)
