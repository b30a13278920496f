"""`ServedModel`: a model under its name, and the one thread that computes with it.

Trajectories wait in a queue. Between two passes of the running batch the thread lets some of them join: all
that fit where nothing runs, else when the first has waited for `max_wait_ms`, or when they are so many that
another pass for their questions is worth it at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.rollout.continuous_batching import ContinuousBatch
from latentplan.rollout.plan_decoding import decode_plans, written_plan
from latentplan.serving.errors import ApiError
from latentplan.serving.jobs import Job, Place
from latentplan.serving.metrics import Metrics
from latentplan.serving.settings import ServeSettings

Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_WORTH_A_PASS = 0.5
"""Share of a full batch that joins without waiting for more."""


class ServedModel:
    """A model that is being served.

    Args:
        name: under which clients ask for it.
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
        self._running: list[Place] = []
        self._unread: list[tuple[float, Place]] = []
        self._changed = threading.Condition()
        self._waiting: deque[Place] = deque()
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
            self._waiting.extend(Place.of(job, self.model.tokenizer))
            self._changed.notify()
        questions = {id(row.question_ids): row.question_ids for row in job.rows}  # samples share theirs
        self._metrics.tokens.labels(self.name, "question").inc(sum(map(len, questions.values())))

    def cancel(self, job: Job) -> None:
        """Gives up a job: its trajectories leave queue and batch, and nothing more is delivered."""
        with self._changed:
            job.cancelled = True
            self._waiting = deque(place for place in self._waiting if place.job is not job)

    def call(self, function: Callable[[LoadedModel], Result]) -> Future[Result]:
        """Has the model's own thread call a function with the model, between two passes of its batch.

        From a coroutine: `await asyncio.wrap_future(served.call(function))`. Other requests wait meanwhile,
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
        """Finishes what has been asked for, and ends the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @torch.no_grad()
    def _work(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """One pass, and what belongs to it; False when there is nothing left to do, ever."""
        with self._changed:
            while not (self._waiting or self._calls or self._running or self._unread):
                if self._closing:
                    return False
                self._changed.wait()
            calls, newcomers = list(self._calls), self._admitted()
            self._calls.clear()
        for call in calls:
            call()
        self._running += newcomers
        try:
            self._pass(newcomers)
            self._tell()
            self._read_plans()
        except Exception as error:
            self._fail(error)
        return True

    def _admitted(self) -> list[Place]:
        """Those that may join now, the longest waiting first; the lock is held."""
        free = self.settings.max_batch_size - len(self._running)
        count = min(free, len(self._waiting))
        if count <= 0 or (self._running and not self._worth_it(count, self._waiting[0].job.since)):
            return []
        return [self._waiting.popleft() for _ in range(count)]

    def _worth_it(self, count: int, since: float) -> bool:
        """Whether so many, of which the first has waited since then, are to be computed now."""
        patience = self.settings.max_wait_ms / 1000
        return count >= _WORTH_A_PASS * self.settings.max_batch_size or time.monotonic() - since >= patience

    def _pass(self, newcomers: list[Place]) -> None:
        for place in self._running:
            if place.job.cancelled:
                place.row.ended = True
        if newcomers:
            waited = self._metrics.waiting_seconds.labels(self.name)
            for place in newcomers:
                waited.observe(time.monotonic() - place.job.since)
            self._batch.admit([place.row for place in newcomers])
        if self._batch.rows:
            self._metrics.batch_size.labels(self.name).observe(self._batch.running)
            self._batch.step()

    def _tell(self) -> None:
        """Delivers what is new; those that have ended leave."""
        looked_at = [place for place in self._running if not place.job.cancelled]
        for place in looked_at:
            place.look()
        self._running = [place for place in self._running if not place.row.ended]
        for place in looked_at:
            if place.row.ended:
                self._end(place)

    def _end(self, place: Place) -> None:
        config = self.model.reasoner.config
        if not place.job.with_plans:
            self._deliver(place, None)
        elif self.model.step_decoder is not None:
            self._unread.append((time.monotonic(), place))
        elif config.written_steps:
            text = place.written.text
            self._deliver(place, written_plan(text, config.step_separator, config.answer_marker))
        else:
            self._deliver(place, None)

    def _read_plans(self) -> None:
        """Reads the plans of those that have ended, many at a time."""
        self._unread = [(since, place) for since, place in self._unread if not place.job.cancelled]
        if not self._unread or (self._running and not self._worth_it(len(self._unread), self._unread[0][0])):
            return
        places = [place for _, place in self._unread]
        plans = self._plans(places)
        self._unread = []
        for place, plan in zip(places, plans, strict=True):
            self._deliver(place, plan)

    def _plans(self, places: list[Place]) -> list[list[str]]:
        config, decoder = self.model.reasoner.config, self.model.step_decoder
        assert decoder is not None
        device = self.model.reasoner.device
        latents = torch.zeros(len(places), config.num_slots, config.hidden_size, device=device)
        mask = torch.zeros(latents.shape[:2], dtype=torch.long, device=device)
        for index, place in enumerate(places):
            used = len(place.row.latents)
            if used:
                latents[index, :used] = torch.stack(place.row.latents)
                mask[index, :used] = 1
        return decode_plans(decoder, self.model.tokenizer, latents, mask)

    def _deliver(self, place: Place, plan: list[str] | None) -> None:
        ended = place.ended(plan)
        name, metrics = self.name, self._metrics
        metrics.ended.labels(name, ended.finish_reason).inc()
        metrics.latents.labels(name).observe(ended.solution.num_latents)
        metrics.tokens.labels(name, "latent").inc(ended.solution.num_latents)
        metrics.tokens.labels(name, "text").inc(ended.solution.num_tokens - ended.solution.num_latents)
        place.job.deliver(ended)

    def _fail(self, error: Exception) -> None:
        """Tells everybody who is being computed, and begins anew."""
        _log.exception("%s: a pass failed; its requests are answered with an error", self.name)
        jobs = {place.job for place in self._running} | {place.job for _, place in self._unread}
        self._running, self._unread, self._batch = [], [], ContinuousBatch(self.model.reasoner)
        for job in jobs:
            if not job.cancelled:
                self.cancel(job)
                job.deliver(error)
