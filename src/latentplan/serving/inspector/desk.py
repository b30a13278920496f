"""Takes what the page asks to the thread of its model, and brings back the answer or what was wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.rollout.sampling import Sampling
from latentplan.serving.errors import ApiError
from latentplan.serving.inspector.asking import Event, ask
from latentplan.serving.inspector.bodies import MAX_EDITS, AskBody, InterveneBody, SampleBody
from latentplan.serving.inspector.checks import check_question
from latentplan.serving.inspector.intervening import greedy_chains, intervene
from latentplan.serving.inspector.sampling import sample
from latentplan.serving.inspector.subjects import Subject
from latentplan.serving.served import ServedModel
from latentplan.serving.settings import ServeSettings

Result = TypeVar("Result")
MAX_AT_ONCE = 32
"""Actions of the page that may wait or be under way at a time."""


class Desk:
    """The inspector of a server.

    Args:
        settings: the server's limits.
        subjects: by the name under which they are served.
        served: whose threads compute.
    """

    def __init__(
        self,
        settings: ServeSettings,
        subjects: Mapping[str, Subject],
        served: Mapping[str, ServedModel],
    ):
        self._settings, self._subjects, self._served = settings, subjects, served
        self._under_way = 0

    def setup(self) -> dict[str, Any]:
        """Models, examples (of the first model that has any) and limits."""
        examples = next((each.examples for each in self._subjects.values() if each.examples), ())
        return {
            "models": [subject.facts() for subject in self._subjects.values()],
            "examples": [vars(example) for example in examples],
            "limits": {
                "max_question_tokens": self._settings.max_question_tokens,
                "max_samples": self._settings.max_samples,
                "max_edits": MAX_EDITS,
            },
        }

    def ask(self, body: AskBody) -> AsyncIterator[str]:
        """Lines of JSON, see `asking`. Raises ApiError."""
        subject = self._subject(body.model, body.question)
        limit = self._settings.default_new_tokens
        return self._lines(
            subject, ask(subject, body.question, max_new_tokens=limit, reference=body.reference)
        )

    async def sample(self, body: SampleBody) -> dict[str, Any]:
        """See `sampling.sample`. Raises ApiError."""
        subject = self._subject(body.model, body.question)
        most = self._settings.max_samples
        if body.count > most:
            message = f"{body.count} samples are too many: this server draws {most} at most"
            raise ApiError(400, message, "count")
        sampling = Sampling(body.temperature, body.latent_temperature, self._settings.default_new_tokens)
        settings: dict[str, Any] = {"count": body.count, "seed": body.seed, "reference": body.reference}
        return await self._answer(subject, partial(sample, subject, body.question, sampling, **settings))

    async def intervene(self, body: InterveneBody) -> dict[str, Any]:
        """See `intervening.intervene`. Raises ApiError."""
        subject = self._subject(body.model, body.question)
        for other in {edit.question for edit in body.edits if edit.question is not None}:
            self._subject(body.model, other, "edits.question")
        edits = [edit.edit() for edit in body.edits]
        settings: dict[str, Any] = {
            "of_models": await self._chains(body),
            "max_new_tokens": self._settings.default_new_tokens,
            "reference": body.reference,
        }
        return await self._answer(subject, partial(intervene, subject, body.question, edits, **settings))

    async def _chains(self, body: InterveneBody) -> dict[str, torch.Tensor]:
        """The chains of the other models that edits name."""
        found = {}
        for name in dict.fromkeys(edit.model for edit in body.edits if edit.model):
            other = self._subject(name, body.question, "edits.model")
            if not other.model.reasoner.config.num_slots:
                raise ApiError(400, f"{name} has no latents to move towards", "edits.model")
            (found[name],) = await self._answer(other, partial(greedy_chains, other.model, [body.question]))
        return found

    def _subject(self, name: str, question: str, field: str = "question") -> Subject:
        """The model that is asked, if it is there and can read the question, and if there is time for it."""
        if self._under_way >= MAX_AT_ONCE:
            message = f"{MAX_AT_ONCE} actions are under way already: try again in a moment"
            raise ApiError(503, message, headers={"Retry-After": "1"})
        if name not in self._subjects:
            there = ", ".join(self._subjects)
            raise ApiError(404, f"there is no model {name!r}; there are: {there}", "model", "model_not_found")
        subject = self._subjects[name]
        try:
            check_question(subject.model, question, self._settings.max_question_tokens)
        except ValueError as error:
            raise ApiError(400, str(error), field) from error
        return subject

    async def _run(self, subject: Subject, function: Callable[[], Result]) -> Result:
        """Calls the function in the model's thread."""

        def with_model(model: LoadedModel) -> Result:
            return function()

        return await asyncio.wrap_future(self._served[subject.name].call(with_model))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Counts an action. Raises TimeoutError where it takes longer than a request may."""
        self._under_way += 1
        try:
            async with asyncio.timeout(self._settings.request_timeout):
                yield
        finally:
            self._under_way -= 1

    async def _answer(self, subject: Subject, function: Callable[[], Result]) -> Result:
        try:
            async with self._turn():
                return await self._run(subject, function)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        except TimeoutError:
            raise ApiError(504, self._too_slow()) from None

    async def _lines(self, subject: Subject, events: Iterator[Event]) -> AsyncIterator[str]:
        """Each event as a line, computed when the one before it has been sent: others get their turns."""
        try:
            async with self._turn():
                while (event := await self._run(subject, partial(next, events, None))) is not None:
                    yield json.dumps(event, ensure_ascii=False) + "\n"
        except TimeoutError:
            yield _failed(504, self._too_slow())
        except Exception:
            logging.getLogger(__name__).exception("asking %s failed", subject.name)
            yield _failed(500, "The server failed at this question; its log says where.")

    def _too_slow(self) -> str:
        return f"no answer within {self._settings.request_timeout:g} seconds (--request_timeout)"


def _failed(status: int, message: str) -> str:
    return json.dumps({"event": "error", "status": status, "message": message}) + "\n"
