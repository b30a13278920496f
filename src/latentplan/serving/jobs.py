"""A request on its way through a model's thread: what it wants, and what it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from latentplan.rollout.continuous_batching import Row
from latentplan.rollout.solve import Solution
from latentplan.serving.written import Written


@dataclass(frozen=True)
class Piece:
    """Text that a trajectory has written since the last piece."""

    index: int
    text: str


@dataclass(frozen=True)
class Ended:
    """A trajectory that is done; `finish_reason` is OpenAI's `stop` or `length`."""

    index: int
    solution: Solution
    finish_reason: str


Event = Piece | Ended | Exception


@dataclass(eq=False)
class Job:
    """The trajectories of one request.

    Attributes:
        rows: one for each trajectory.
        stop: texts that end an answer.
        with_plans: whether plans are to be read.
        streams: whether pieces are wanted as they come.
        deliver: takes what there is to say, called from the model's thread. After an exception comes nothing.
        since: when it was made, by `time.monotonic`.
        cancelled: whether nobody waits for it any more.
    """

    rows: Sequence[Row]
    stop: Sequence[str]
    with_plans: bool
    streams: bool
    deliver: Callable[[Event], None]
    since: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    @property
    def grows(self) -> bool:
        """Whether its text has to be looked at after every token."""
        return self.streams or bool(self.stop)


@dataclass(eq=False)
class Place:
    """A trajectory of a job: which it is, and its text so far."""

    job: Job
    index: int
    row: Row
    written: Written

    @classmethod
    def of(cls, job: Job, tokenizer: PreTrainedTokenizerBase) -> list[Place]:
        """All of a job."""
        return [cls(job, index, row, Written(tokenizer, job.stop)) for index, row in enumerate(job.rows)]

    def look(self) -> None:
        """Takes in what has been written, and says so."""
        if not (self.job.grows or self.row.ended):
            return
        new = self.written.grow(self.row.answer_ids, self.row.ended)
        if self.written.stopped:
            self.row.ended = True
        if new and self.job.streams:
            self.job.deliver(Piece(self.index, new))

    def ended(self, plan: list[str] | None) -> Ended:
        """What there is to say at the end."""
        row = self.row
        latents, text = len(row.latents), len(row.answer_ids) - row.finished
        solution = Solution(self.written.text, plan, latents, latents + text, row.finished)
        return Ended(self.index, solution, "stop" if row.finished or self.written.stopped else "length")
