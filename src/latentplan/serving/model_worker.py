"""`ModelWorker`: a served model, and the one thread that computes with it.

Trajectories wait in a queue. Between two passes of the running batch the thread admits some of them: all that
fit where nothing runs, else when the first has waited for `max_wait_ms`, or when they are so many that
another pass for their questions is worth it at once. A `Job` holds the trajectories of one request; it
receives deltas of text, detokenized while they are being written, and the finished trajectories.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from latentplan.modeling.loading import LoadedModel
from latentplan.rollout.continuous_batching import ContinuousBatch, Row
from latentplan.rollout.plan_decoding import decode_plans, written_plan
from latentplan.rollout.solve import Solution
from latentplan.serving.prometheus import Metrics
from latentplan.serving.protocol import ApiError
from latentplan.serving.settings import ServeSettings

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """The text of an answer while it is being written, as far as it is certain.

    Space at both ends is left out, as in `solve`. Held back until more is known: space that may turn out to
    be the last, a character of which only some bytes are there, and what may become a stop sequence.

    Args:
        tokenizer: of the answer.
        stop: texts that end the answer; they are not part of it.

    Attributes:
        text: what is certain; all of it, once the answer is finished.
        stopped: whether a stop sequence was written.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()):
        self._tokenizer, self._stop = tokenizer, stop
        self.text = ""
        self.stopped = False

    def grow(self, ids: Sequence[int], finished: bool) -> str:
        """Takes all token ids of the answer so far; returns what has become certain since the last time."""
        if self.stopped:
            return ""
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).lstrip()
        found = [text.index(each) for each in self._stop if each in text]
        if found:
            self.stopped, finished, text = True, True, text[: min(found)]
        if not finished:
            text = text.rstrip(_INCOMPLETE)
            text = text[: len(text) - self._perhaps_stop(text)]
        text = text.rstrip()
        if not finished and not text.startswith(self.text):
            return ""
        new = text[len(self.text) :]
        self.text = text
        return new

    def _perhaps_stop(self, text: str) -> int:
        """Counts the characters at the end with which a stop sequence may have begun."""
        lengths = [
            length
            for each in self._stop
            for length in range(1, min(len(each), len(text) + 1))
            if text.endswith(each[:length])
        ]
        return max(lengths, default=0)


@dataclass(frozen=True)
class Delta:
    """Text that a trajectory has written since the last delta."""

    index: int
    text: str


@dataclass(frozen=True)
class Finished:
    """A finished trajectory; `finish_reason` is OpenAI's `stop` or `length`."""

    index: int
    solution: Solution
    finish_reason: str


Event = Delta | Finished | Exception


@dataclass(eq=False)
class Job:
    """The trajectories of one request.

    Attributes:
        rows: one for each trajectory.
        stop: texts that end an answer.
        with_plans: whether plans are to be read.
        streams: whether deltas are wanted as they come.
        deliver: takes events, called from the model's thread. Nothing comes after an exception.
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
class JobRow:
    """A trajectory of a job: which it is, its row in the batch, and its text so far."""

    job: Job
    index: int
    row: Row
    detokenizer: Detokenizer

    @classmethod
    def of(cls, job: Job, tokenizer: PreTrainedTokenizerBase) -> list[JobRow]:
        """Returns the rows of a job."""
        return [cls(job, index, row, Detokenizer(tokenizer, job.stop)) for index, row in enumerate(job.rows)]

    def update(self) -> None:
        """Takes in what has been written, and delivers it."""
        if not (self.job.grows or self.row.ended):
            return
        new = self.detokenizer.grow(self.row.answer_ids, self.row.ended)
        if self.detokenizer.stopped:
            self.row.ended = True
        if new and self.job.streams:
            self.job.deliver(Delta(self.index, new))

    def finished(self, plan: list[str] | None) -> Finished:
        """Returns the event that ends it."""
        row = self.row
        latents, text = len(row.latents), len(row.answer_ids) - row.finished
        solution = Solution(self.detokenizer.text, plan, latents, latents + text, row.finished)
        return Finished(
            self.index, solution, "stop" if row.finished or self.detokenizer.stopped else "length"
        )


Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_WORTH_A_PASS = 0.5
"""Share of a full batch that joins without waiting for more."""


class ModelWorker:
    """A served model and its thread.

    Args:
        name: under which clients request it.
        model: the model.
        settings: of the server.
        metrics: what is counted.
    """

    def __init__(
        self, name: str, model: LoadedModel, settings: ServeSettings, metrics: Metrics | None = None
    ):
        self.name, self.model, self.settings = name, model, settings
        self.created = int(time.time())
        self._metrics = metrics or Metrics()
        self._batch = ContinuousBatch(model.reasoner)
        self._running: list[JobRow] = []
        self._undecoded: list[tuple[float, JobRow]] = []
        self._changed = threading.Condition()
        self._waiting: deque[JobRow] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._closing = False
        self._metrics.waiting.labels(name).set_function(lambda: len(self._waiting))
        self._metrics.running.labels(name).set_function(lambda: len(self._running))
        self._thread = threading.Thread(target=self._work, name=f"model {name}", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it takes questions."""
        return self._thread.is_alive() and not self._closing

    def submit(self, job: Job) -> None:
        """Puts a job's trajectories into the queue.

        Raises:
            ApiError: 503, there is no room for them, or the server is being shut down.
        """
        with self._changed:
            self._refuse_if_full(len(self._waiting) + len(job.rows))
            self._waiting.extend(JobRow.of(job, self.model.tokenizer))
            self._changed.notify()
        questions = {id(row.question_ids): row.question_ids for row in job.rows}  # samples share theirs
        self._metrics.tokens.labels(self.name, "question").inc(sum(map(len, questions.values())))

    def cancel(self, job: Job) -> None:
        """Gives up a job: its trajectories leave queue and batch, and nothing more is delivered."""
        with self._changed:
            job.cancelled = True
            self._waiting = deque(each for each in self._waiting if each.job is not job)

    def call(self, function: Callable[[LoadedModel], Result]) -> Future[Result]:
        """Has the model's own thread call a function with the model, between two passes of its batch.

        From a coroutine: `await asyncio.wrap_future(worker.call(function))`. Other requests wait meanwhile,
        so it should take well under a second. No gradients are kept.

        Raises:
            ApiError: 503, too many wait already, or the server is being shut down.
        """
        future: Future[Result] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(self.model))
                except BaseException as error:
                    future.set_exception(error)

        with self._changed:
            self._refuse_if_full(len(self._calls) + 1)
            self._calls.append(run)
            self._changed.notify()
        return future

    def _refuse_if_full(self, waiting: int) -> None:
        """Raises ApiError where no more, or not so many, are taken; the lock is held."""
        if self._closing:
            raise ApiError(503, "the server is being shut down", code="closing", headers={"Retry-After": "5"})
        if waiting > self.settings.max_queue:
            raise ApiError(
                503,
                f"too many questions wait for {self.name} already (--max_queue): try again",
                code="queue_full",
                headers={"Retry-After": "1"},
            )

    def close(self) -> None:
        """Finishes what has been requested, and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @torch.no_grad()
    def _work(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Makes one pass, with what belongs to it; returns False when there is nothing left to do, ever."""
        with self._changed:
            while not (self._waiting or self._calls or self._running or self._undecoded):
                if self._closing:
                    return False
                self._changed.wait()
            calls, admitted = list(self._calls), self._admit()
            self._calls.clear()
        for call in calls:
            call()
        self._running += admitted
        try:
            self._pass(admitted)
            self._emit()
            self._decode_plans()
        except Exception as error:
            self._fail(error)
        return True

    def _admit(self) -> list[JobRow]:
        """Takes from the queue what may join now, the longest waiting first; the lock is held."""
        free = self.settings.max_batch_size - len(self._running)
        count = min(free, len(self._waiting))
        if count <= 0 or (self._running and not self._worth_it(count, self._waiting[0].job.since)):
            return []
        return [self._waiting.popleft() for _ in range(count)]

    def _worth_it(self, count: int, since: float) -> bool:
        """Returns whether so many, of which the first has waited since then, are to be computed now."""
        patience = self.settings.max_wait_ms / 1000
        return count >= _WORTH_A_PASS * self.settings.max_batch_size or time.monotonic() - since >= patience

    def _pass(self, admitted: list[JobRow]) -> None:
        for each in self._running:
            if each.job.cancelled:
                each.row.ended = True
        if admitted:
            waited = self._metrics.waiting_seconds.labels(self.name)
            for each in admitted:
                waited.observe(time.monotonic() - each.job.since)
            self._batch.admit([each.row for each in admitted])
        if self._batch.rows:
            self._metrics.batch_size.labels(self.name).observe(self._batch.running)
            self._batch.step()

    def _emit(self) -> None:
        """Delivers what is new; finished trajectories leave."""
        wanted = [each for each in self._running if not each.job.cancelled]
        for each in wanted:
            each.update()
        self._running = [each for each in self._running if not each.row.ended]
        for each in wanted:
            if each.row.ended:
                self._finish(each)

    def _finish(self, each: JobRow) -> None:
        config = self.model.reasoner.config
        if not each.job.with_plans:
            self._deliver(each, None)
        elif self.model.step_decoder is not None:
            self._undecoded.append((time.monotonic(), each))
        elif config.written_steps:
            text = each.detokenizer.text
            self._deliver(each, written_plan(text, config.step_separator, config.answer_marker))
        else:
            self._deliver(each, None)

    def _decode_plans(self) -> None:
        """Decodes the plans of finished trajectories, many at a time."""
        self._undecoded = [(since, each) for since, each in self._undecoded if not each.job.cancelled]
        waiting = len(self._undecoded)
        if not waiting or (self._running and not self._worth_it(waiting, self._undecoded[0][0])):
            return
        finished = [each for _, each in self._undecoded]
        plans = self._plans(finished)
        self._undecoded = []
        for each, plan in zip(finished, plans, strict=True):
            self._deliver(each, plan)

    def _plans(self, finished: list[JobRow]) -> list[list[str]]:
        config, decoder = self.model.reasoner.config, self.model.step_decoder
        assert decoder is not None
        device = self.model.reasoner.device
        latents = torch.zeros(len(finished), config.num_slots, config.hidden_size, device=device)
        mask = torch.zeros(latents.shape[:2], dtype=torch.long, device=device)
        for index, each in enumerate(finished):
            used = len(each.row.latents)
            if used:
                latents[index, :used] = torch.stack(each.row.latents)
                mask[index, :used] = 1
        return decode_plans(decoder, self.model.tokenizer, latents, mask)

    def _deliver(self, each: JobRow, plan: list[str] | None) -> None:
        finished = each.finished(plan)
        name, metrics = self.name, self._metrics
        metrics.finished.labels(name, finished.finish_reason).inc()
        metrics.latents.labels(name).observe(finished.solution.num_latents)
        metrics.tokens.labels(name, "latent").inc(finished.solution.num_latents)
        metrics.tokens.labels(name, "text").inc(finished.solution.num_tokens - finished.solution.num_latents)
        each.job.deliver(finished)

    def _fail(self, error: Exception) -> None:
        """Delivers an error to every job that is being computed, and starts a new batch."""
        _log.exception("%s: a pass failed; its requests are answered with an error", self.name)
        jobs = {each.job for each in self._running} | {each.job for _, each in self._undecoded}
        self._running, self._undecoded, self._batch = [], [], ContinuousBatch(self.model.reasoner)
        for job in jobs:
            if not job.cancelled:
                self.cancel(job)
                job.deliver(error)
