"""Continuous batching: rows are admitted while others are unfinished, and leave when they are done.

`engine.generate` takes questions that all start together; to a server they come one by one, each with its own
temperatures and length. Here every pass takes each row further, wherever it is: by a block of latents, by
`<|end-latent|>` or by a token. A row's noise follows from its key as in `generate`, masked columns are
invisible and positions count from each row's own beginning, so a row is the trajectory that `generate` gives
it, whatever rows are with it (up to the rounding of sums over more or fewer columns).

What is known to be slower than `generate`: no captured passes on a GPU, one wait for the device a pass, and
a chain that fills all its slots takes `<|end-latent|>` in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch

from latentplan.encoding.processor import pad_left
from latentplan.modeling import counter_rng
from latentplan.modeling.counter_rng import Stream
from latentplan.modeling.decoding_state import DecodingState, Lookahead
from latentplan.modeling.efficiency.batch_compaction import merge_states
from latentplan.modeling.efficiency.prefill import prefill
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling, draw
from latentplan.modeling.thinking import Block
from latentplan.modeling.token_loop import embed_inputs
from latentplan.rollout.engine import trajectory_keys

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
        memory: `[n]`, what the input rule remembers.
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
    memory: torch.Tensor | None = None

    @property
    def full(self) -> bool:
        """Whether no further latent or token may come."""
        together = len(self.latents) + len(self.answer_ids)
        return len(self.answer_ids) >= self.sampling.max_new_tokens or (
            self.max_tokens is not None and together >= self.max_tokens
        )


def rows_of(question_ids: list[int], seed: int, problem: int, samples: int, sampling: Sampling) -> list[Row]:
    """Returns the rows of a question's samples, with the keys that `generate` gives them."""
    if sampling.temperature == sampling.latent_temperature == 0:
        return [Row(question_ids, 0, sampling) for _ in range(samples)]  # nothing is drawn
    keys = trajectory_keys(seed, torch.tensor([problem]), samples)
    return [Row(question_ids, key, sampling) for key in keys.tolist()]


class ContinuousBatch:
    """Rows that are computed together.

    Args:
        model: the policy.

    Attributes:
        rows: the unfinished ones, and some that have ended and not left yet.
    """

    def __init__(self, model: LatentReasoner):
        self.model = model
        self.rows: list[Row] = []
        self._state: DecodingState | None = None
        eos = model.config.eos_token_id
        self._eos = frozenset([eos] if isinstance(eos, int) else eos or [])

    @property
    def running(self) -> int:
        """Unfinished rows."""
        return sum(not row.ended for row in self.rows)

    @torch.no_grad()
    def admit(self, rows: Sequence[Row]) -> None:
        """Reads the questions of new rows, in one pass, and takes each row's first decision."""
        for row in rows:
            row.closed = not self.model.config.has_latents
        questions = {tuple(row.question_ids): None for row in rows}
        indices = {question: index for index, question in enumerate(questions)}
        ids, mask = pad_left(list(questions), cast(int, self.model.config.pad_token_id))
        device = self.model.device
        state = self.model.start(ids.to(device), mask.to(device))
        prefill(state)
        if len(questions) < len(rows):
            which = torch.tensor([indices[tuple(row.question_ids)] for row in rows], device=device)
            state = state.selected(which)
        self._advance(state, list(rows))
        self._take([(self._state, self.rows), (state, list(rows))])

    @torch.no_grad()
    def step(self) -> None:
        """Takes every row further by one pass."""
        if self._state is None:
            return
        self._state.read()
        self._advance(self._state, self.rows)
        running = self.running
        if not running or (len(self.rows) >= _WORTH_LEAVING and 2 * running <= len(self.rows)):
            self._take([(self._state, self.rows)])

    def _take(self, parts: list[tuple[DecodingState | None, list[Row]]]) -> None:
        """Keeps the unfinished rows of the parts."""
        chosen = []
        for state, rows in parts:
            unfinished = [index for index, row in enumerate(rows) if not row.ended]
            if state is not None and unfinished:
                chosen.append((state, torch.tensor(unfinished, device=state.mask.device)))
        self.rows = [row for _, rows in parts for row in rows if not row.ended]
        if len(chosen) == 1 and len(chosen[0][1]) == chosen[0][0].rows:
            self._state = chosen[0][0]
        else:
            self._state = merge_states(chosen) if chosen else None
            if self._state is not None and self._block > 1:
                self._state.pack()

    @property
    def _block(self) -> int:
        """Latents that are drawn together."""
        config = self.model.config
        return min(self.model.thinking.block_size(config), config.num_slots)

    def _advance(self, state: DecodingState, rows: list[Row]) -> None:
        """Decides what each row reads next: its inputs are pending then, aligned to the right."""
        slots, assigned = self.model.config.num_slots, _Assigned([], [], [])
        for index, row in enumerate(rows):
            if not row.ended:
                full = len(row.latents) == slots
                (assigned.writing if row.closed else assigned.closing if full else assigned.thinking).append(
                    index
                )
        assert state.last_hidden is not None
        width = self._block if assigned.thinking else 1
        inputs = state.last_hidden.new_zeros(
            len(rows), width, state.last_hidden.shape[1], dtype=torch.float32
        )
        mask = state.mask.new_zeros(len(rows), width)
        if assigned.thinking:
            assigned.closing.extend(self._think(state, rows, assigned.thinking, inputs, mask))
        if assigned.closing:
            end = self.model.end_latent(len(assigned.closing))[0][:, 0].float()
            behind = mask[assigned.closing].sum(dim=1)
            inputs[assigned.closing, behind], mask[assigned.closing, behind] = end, 1
            for index in assigned.closing:
                rows[index].closed = True
        for indices in self._alike(rows, assigned.writing):
            self._write(state, rows, indices, inputs)
        ended = torch.tensor([row.ended for row in rows], device=mask.device)
        mask[assigned.writing, 0] = 1
        mask.masked_fill_(ended.unsqueeze(1), 0)
        if width > 1:
            order = mask.argsort(dim=1, stable=True)
            mask, inputs = mask.gather(1, order), inputs.take_along_dim(order.unsqueeze(2), dim=1)
        state.append(inputs, mask)

    def _think(
        self,
        state: DecodingState,
        rows: list[Row],
        indices: list[int],
        inputs: torch.Tensor,
        mask: torch.Tensor,
    ) -> list[int]:
        """Draws a block of latents of the rows at `indices`; returns the indices of those that stop in it."""
        those, device = [rows[index] for index in indices], mask.device
        start = torch.tensor([len(row.latents) for row in those], device=device)
        block = self._next_block(state.view(torch.tensor(indices, device=device)), those, start)
        used, _ = self._length(those).decide(self.model, block.latents, start, torch.ones_like(start))
        inputs[indices, : block.latents.shape[1]], mask[indices, : used.shape[1]] = block.latents, used
        size, stopping = used.shape[1], []
        for index, row, latents, count in zip(
            indices, those, block.latents, self._counts(those, used), strict=True
        ):
            left = count if row.max_tokens is None else row.max_tokens - len(row.latents)
            row.latents.extend(latents[: min(count, left)])
            row.ended = row.full
            if count < size and not row.ended:
                stopping.append(index)
        return stopping

    def _counts(self, rows: list[Row], used: torch.Tensor) -> list[int]:
        """Counts latents of a block in use, of each row; waits for the device only where the stop head
        decided.
        """
        step, size = self.model.config.latents_per_step, used.shape[1]
        decided = self.model.stop_head is not None and any(-len(row.latents) % step < size for row in rows)
        return used.sum(dim=1).tolist() if decided else [size] * len(rows)

    def _next_block(self, state: Lookahead, rows: list[Row], start: torch.Tensor) -> Block:
        """Draws the next block of latents of some rows, from the slots `start` `[rows]` on."""
        size, scales = self._block, [row.sampling.latent_temperature for row in rows]
        epsilon = None
        if self.model.is_gaussian and any(scales):
            slot = start.unsqueeze(1) + torch.arange(size, device=start.device)
            keys = counter_rng.derive(self._keys(rows).unsqueeze(1), Stream.LATENT, slot)
            epsilon = counter_rng.gaussian(keys, self.model.config.hidden_size)
        temperature = torch.tensor(scales, device=start.device)
        return self.model.thinking.next_block(self.model, state, size, epsilon, temperature, None)

    def _length(self, rows: list[Row]) -> LatentLength:
        """Returns the length rule of some rows."""
        temperatures = [row.sampling.temperature for row in rows]
        if not any(temperatures):
            return LatentLength()
        keys = counter_rng.thinking_draws(self.model.config, self._keys(rows), latents=False).stops
        return LatentLength(temperature=torch.tensor(temperatures, device=self.model.device), keys=keys)

    def _alike(self, rows: list[Row], indices: list[int]) -> list[list[int]]:
        """Splits rows that write into those that an input rule draws for and those at temperature 0."""
        if not self.model.input_rule.draws:
            return [indices] if indices else []
        warm = [index for index in indices if rows[index].sampling.temperature]
        cold = [index for index in indices if not rows[index].sampling.temperature]
        return [part for part in (warm, cold) if part]

    def _write(self, state: DecodingState, rows: list[Row], indices: list[int], inputs: torch.Tensor) -> None:
        """Writes a token of each row at `indices`."""
        those = [rows[index] for index in indices]
        assert state.last_hidden is not None
        logits = self.model.logits(state.last_hidden[indices])
        position = torch.tensor([len(row.answer_ids) for row in those], device=logits.device)
        temperatures = torch.tensor([row.sampling.temperature for row in those], device=logits.device)
        drawn = input_keys = None
        if any(row.sampling.temperature for row in those):
            keys = self._keys(those)
            drawn = counter_rng.derive(keys, Stream.TOKEN, 0, 0, position)
            if self.model.input_rule.draws:
                input_keys = counter_rng.derive(keys, Stream.INPUT, 0, 0, position)
        tokens = draw(logits, drawn, temperatures)
        after = self.model.input_rule.next_input(logits, tokens, self._memory(those), input_keys)
        inputs[indices, 0] = embed_inputs(self.model, after.ids, after.weights).float()
        for row, token, memory in zip(
            those, tokens.tolist(), [None] * len(those) if after.memory is None else after.memory, strict=True
        ):
            row.answer_ids.append(token)
            row.memory = memory
            row.finished = token in self._eos
            row.ended = row.finished or row.full

    def _memory(self, rows: list[Row]) -> torch.Tensor | None:
        """Returns what the input rule remembers of rows, `[rows, n]`."""
        start = self.model.input_rule.memory(len(rows), self.model.device)
        if start is None:
            return None
        return torch.stack(
            [first if row.memory is None else row.memory for row, first in zip(rows, start, strict=True)]
        )

    def _keys(self, rows: list[Row]) -> torch.Tensor:
        return torch.tensor([row.key for row in rows], device=self.model.device)


class _Assigned(NamedTuple):
    """The indices of rows by what comes next: a block of latents, the end of a chain, a token."""

    thinking: list[int]
    closing: list[int]
    writing: list[int]
