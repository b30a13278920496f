"""The inspector's handlers: what the page sends, checked, and computed in the thread of its model."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.continuous_batching import Row, rows_of
from latentplan.rollout.edits import Edit
from latentplan.rollout.solve import Solution
from latentplan.serving.endpoints import find_model, gather, into_queue
from latentplan.serving.inspector.inspected_model import InspectedModel
from latentplan.serving.inspector.views import Event, ask, chains_of, intervene, tally
from latentplan.serving.model_worker import Event as WorkerEvent
from latentplan.serving.model_worker import Job, ModelWorker
from latentplan.serving.prompts import Questions
from latentplan.serving.protocol import ApiError, not_almost_zero
from latentplan.serving.settings import ServeSettings

MAX_EDITS = 64
_SEED = Field(default=0, ge=0, lt=2**31)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AskBody(_Body):
    """Which model, which question, and the correct answer where it is known."""

    model: str
    question: str
    reference: str | None = Field(default=None, max_length=1000)


class SampleBody(AskBody):
    """How many samples, and how they are drawn."""

    count: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=5)
    latent_temperature: float = Field(default=1.0, ge=0, le=10)
    seed: int = _SEED

    _not_almost_zero = field_validator("temperature")(not_almost_zero)


class EditBody(_Body):
    """One edit, see `edits.Edit`."""

    kind: Literal["delete", "zero", "noise", "swap", "keep", "splice", "move"]
    steps: list[int] = Field(default=[], max_length=MAX_EDITS)
    seed: int = _SEED
    question: str | None = None
    from_step: int | None = None
    model: str | None = None
    share: float = Field(default=1.0, ge=0, le=1)
    think_on: bool = False

    def edit(self) -> Edit:
        """Returns the edit that is meant."""
        settings = {**self.model_dump(), "steps": tuple(self.steps)}
        return Edit(regenerate=settings.pop("think_on"), **settings)


class InterveneBody(AskBody):
    """The edits, each made to the intact chain."""

    edits: list[EditBody] = Field(min_length=1, max_length=MAX_EDITS)


Result = TypeVar("Result")
MAX_AT_ONCE = 32
"""Actions of the page that may wait or be under way at a time."""


class Handlers:
    """The inspector of a server.

    Args:
        settings: the server's limits.
        models: by the name under which they are served.
        workers: whose threads compute.
    """

    def __init__(
        self,
        settings: ServeSettings,
        models: Mapping[str, InspectedModel],
        workers: Mapping[str, ModelWorker],
    ):
        self._settings, self._models, self._workers = settings, models, workers
        self._questions = {name: Questions(each.model, settings) for name, each in workers.items()}
        self._under_way = 0

    def setup(self) -> dict[str, Any]:
        """Returns models, examples (of the first model that has any) and limits."""
        examples = next((each.examples for each in self._models.values() if each.examples), ())
        return {
            "models": [inspected.facts() for inspected in self._models.values()],
            "examples": [vars(example) for example in examples],
            "limits": {
                "max_question_tokens": self._settings.max_question_tokens,
                "max_samples": self._settings.max_samples,
                "max_edits": MAX_EDITS,
            },
        }

    def ask(self, body: AskBody) -> AsyncIterator[str]:
        """Yields lines of JSON, see `views.ask`. Raises ApiError."""
        inspected, ids = self._read(body.model, body.question)
        length = self._length(inspected, ids)
        events = ask(inspected, body.question, max_new_tokens=length, reference=body.reference)
        return self._lines(inspected, events)

    async def sample(self, body: SampleBody) -> dict[str, Any]:
        """Returns what `views.tally` does; the samples are drawn in the model's running batch. Raises
        ApiError.
        """
        inspected, ids = self._read(body.model, body.question)
        most = self._settings.max_samples
        if body.count > most:
            message = f"{body.count} samples are too many: this server draws {most} at most"
            raise ApiError(400, message, "count")
        if body.count > 1 and body.temperature == body.latent_temperature == 0:
            message = "at temperature 0 all samples are the same: set it above 0"
            raise ApiError(400, message, "temperature")
        sampling = Sampling(body.temperature, body.latent_temperature, self._length(inspected, ids))
        rows = rows_of(ids, body.seed, 0, body.count, sampling)
        solutions = await self._roll_out(self._workers[inspected.name], rows)
        return tally(inspected, body.question, solutions, body.reference)

    async def _roll_out(self, worker: ModelWorker, rows: Sequence[Row]) -> list[Solution]:
        events: asyncio.Queue[WorkerEvent] = asyncio.Queue()
        job = Job(rows, (), with_plans=True, streams=False, deliver=into_queue(events))
        try:
            async with self._turn():
                worker.submit(job)
                return [each.solution for each in await gather(events, len(rows))]
        except TimeoutError:
            raise ApiError(504, self._too_slow()) from None
        finally:
            worker.cancel(job)

    async def intervene(self, body: InterveneBody) -> dict[str, Any]:
        """Returns what `views.intervene` does. Raises ApiError."""
        inspected, ids = self._read(body.model, body.question)
        lengths = [self._length(inspected, ids)]
        for other in {edit.question for edit in body.edits if edit.question is not None}:
            _, other_ids = self._read(body.model, other, "edits.question")
            lengths.append(self._length(inspected, other_ids))
        edits = [edit.edit() for edit in body.edits]
        settings: dict[str, Any] = {
            "of_models": await self._chains(body),
            "max_new_tokens": min(lengths),
            "reference": body.reference,
        }
        return await self._answer(inspected, partial(intervene, inspected, body.question, edits, **settings))

    async def _chains(self, body: InterveneBody) -> dict[str, torch.Tensor]:
        """Returns the chains of the other models that edits name."""
        found = {}
        for name in dict.fromkeys(edit.model for edit in body.edits if edit.model):
            other, _ = self._read(name, body.question)
            if not other.model.reasoner.config.has_latents:
                raise ApiError(400, f"{name} has no latents to move towards", "edits.model")
            (found[name],) = await self._answer(other, partial(chains_of, other.model, [body.question]))
        return found

    def _read(self, name: str, question: str, field: str = "question") -> tuple[InspectedModel, list[int]]:
        """Returns the requested model and the question's ids. Raises ApiError, also where there is no
        time.
        """
        if self._under_way >= MAX_AT_ONCE:
            message = f"{MAX_AT_ONCE} actions are under way already: try again in a moment"
            raise ApiError(503, message, headers={"Retry-After": "1"})
        find_model(self._workers, name)
        return self._models[name], self._questions[name].read(question, field)

    def _length(self, inspected: InspectedModel, ids: Sequence[int]) -> int:
        """Returns text tokens that may be written after a question."""
        return min(self._settings.default_new_tokens, self._questions[inspected.name].room(ids))

    async def _run(self, inspected: InspectedModel, function: Callable[[], Result]) -> Result:
        """Calls the function in the model's thread."""

        def with_model(model: LoadedModel) -> Result:
            return function()

        return await asyncio.wrap_future(self._workers[inspected.name].call(with_model))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Counts an action. Raises TimeoutError where it takes longer than a request may."""
        self._under_way += 1
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                yield
        finally:
            self._under_way -= 1

    async def _answer(self, inspected: InspectedModel, function: Callable[[], Result]) -> Result:
        try:
            async with self._turn():
                return await self._run(inspected, function)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        except TimeoutError:
            raise ApiError(504, self._too_slow()) from None

    async def _lines(self, inspected: InspectedModel, events: Iterator[Event]) -> AsyncIterator[str]:
        """Yields each event as a line, computed when the one before it has been sent: others get their
        turns.
        """
        try:
            async with self._turn():
                while (event := await self._run(inspected, partial(next, events, None))) is not None:
                    yield json.dumps(event, ensure_ascii=False) + "\n"
        except TimeoutError:
            yield _failed(504, self._too_slow())
        except ApiError as error:
            yield _failed(error.status, error.message)
        except Exception:
            logging.getLogger(__name__).exception("asking %s failed", inspected.name)
            yield _failed(500, "The server failed at this question; its log says where.")

    def _too_slow(self) -> str:
        return f"no answer within {self._settings.request_timeout:g} seconds (--request_timeout)"


def _failed(status: int, message: str) -> str:
    return json.dumps({"event": "error", "status": status, "message": message}) + "\n"
