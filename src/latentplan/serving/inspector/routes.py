"""The inspector over HTTP: the page at `/`, its files under `/inspect/page/`, and what it asks for.

| route | what |
| --- | --- |
| `GET /inspect/setup` | the models, questions to pick, limits |
| `POST /inspect/ask` | one model's answer, a line of JSON for each step and token as it comes |
| `POST /inspect/sample` | k samples and their votes |
| `POST /inspect/intervene` | the answer with changed latents |
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from latentplan.modeling.loading import LoadedModel
from latentplan.rollout.sampling import Sampling
from latentplan.serving.errors import ApiError
from latentplan.serving.inspector.asking import Event, ask
from latentplan.serving.inspector.checks import check_question
from latentplan.serving.inspector.edits import Edit
from latentplan.serving.inspector.intervening import intervene
from latentplan.serving.inspector.sampling import sample
from latentplan.serving.inspector.subjects import Subject
from latentplan.serving.served import ServedModel

PAGE = Path(__file__).parent / "page"
MAX_EDITS = 64
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

Result = TypeVar("Result")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AskBody(_Body):
    """Which model, which question, and the right answer where it is known."""

    model: str
    question: str
    reference: str | None = Field(default=None, max_length=1000)


class SampleBody(AskBody):
    """How many samples, and how they are drawn."""

    count: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=5)
    latent_temperature: float = Field(default=1.0, ge=0, le=10)
    seed: int = Field(default=0, ge=0, lt=2**31)


class EditBody(_Body):
    """One edit, see `edits.Edit`."""

    kind: Literal["delete", "zero", "noise", "swap", "keep", "splice"]
    steps: list[int] = Field(default=[], max_length=MAX_EDITS)
    seed: int = Field(default=0, ge=0, lt=2**31)
    question: str | None = None
    from_step: int | None = None
    think_on: bool = False


class InterveneBody(AskBody):
    """The edits, each made to the intact chain."""

    edits: list[EditBody] = Field(min_length=1, max_length=MAX_EDITS)


def add_inspector(app: FastAPI, subjects: Mapping[str, Subject], served: Mapping[str, ServedModel]) -> None:
    """Puts the page and its routes on the application.

    Args:
        app: `app.state.settings` holds the server's limits.
        subjects: by the name under which they are served.
        served: whose threads compute.
    """
    desk = _Desk(app, subjects, served)
    app.mount("/inspect/page", _Files(directory=PAGE))

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=_HEADERS)

    @app.get("/inspect/setup")
    async def setup() -> dict[str, Any]:
        return desk.setup()

    @app.post("/inspect/ask")
    async def asked(body: AskBody) -> StreamingResponse:
        subject = desk.subject(body)
        limit = app.state.settings.default_new_tokens
        events = ask(subject, body.question, max_new_tokens=limit, reference=body.reference)
        return StreamingResponse(desk.lines(subject, events), media_type="application/x-ndjson")

    @app.post("/inspect/sample")
    async def sampled(body: SampleBody) -> JSONResponse:
        subject = desk.subject(body)
        most = app.state.settings.max_samples
        if body.count > most:
            raise ApiError(
                400, f"{body.count} samples are too many: this server draws {most} at most", "count"
            )
        sampling = Sampling(body.temperature, body.latent_temperature, app.state.settings.default_new_tokens)
        return await desk.answer(
            subject,
            lambda: sample(
                subject,
                body.question,
                sampling,
                count=body.count,
                seed=body.seed,
                reference=body.reference,
            ),
        )

    @app.post("/inspect/intervene")
    async def intervened(body: InterveneBody) -> JSONResponse:
        subject = desk.subject(body)
        for edit in body.edits:
            if edit.question is not None:
                desk.check(subject, edit.question, "edits.question")
        edits = [
            Edit(each.kind, tuple(each.steps), each.seed, each.question, each.from_step, each.think_on)
            for each in body.edits
        ]
        limit = app.state.settings.default_new_tokens
        return await desk.answer(
            subject,
            lambda: intervene(subject, body.question, edits, max_new_tokens=limit, reference=body.reference),
        )

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if first["type"] != "json_invalid")
        return ApiError(400, f"{where}: {first['msg']}" if where else first["msg"], where or None).response()


class _Files(StaticFiles):
    """The page's files, with the page's headers."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        """As `StaticFiles`."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response


class _Desk:
    """Takes what is asked to the thread of its model."""

    def __init__(self, app: FastAPI, subjects: Mapping[str, Subject], served: Mapping[str, ServedModel]):
        self._app, self._subjects, self._served = app, subjects, served

    def setup(self) -> dict[str, Any]:
        """Models, examples (of the first model that has any) and limits."""
        settings = self._app.state.settings
        examples = next((each.examples for each in self._subjects.values() if each.examples), ())
        limits = {name: getattr(settings, name) for name in ("max_question_tokens", "max_samples")}
        return {
            "models": [subject.facts() for subject in self._subjects.values()],
            "examples": [vars(example) for example in examples],
            "limits": {**limits, "max_edits": MAX_EDITS},
        }

    def subject(self, body: AskBody) -> Subject:
        """The model that is asked, its question checked. Raises ApiError."""
        if body.model not in self._subjects:
            there = ", ".join(self._subjects)
            raise ApiError(
                404, f"there is no model {body.model!r}; there are: {there}", "model", "model_not_found"
            )
        subject = self._subjects[body.model]
        self.check(subject, body.question, "question")
        return subject

    def check(self, subject: Subject, question: str, field: str) -> None:
        """Raises ApiError on a question that the model cannot read."""
        try:
            check_question(subject.model, question, self._app.state.settings.max_question_tokens)
        except ValueError as error:
            raise ApiError(400, str(error), field) from error

    async def run(self, subject: Subject, function: Callable[[], Result]) -> Result:
        """Calls the function in the model's thread."""

        def with_model(model: LoadedModel) -> Result:
            return function()

        return await asyncio.wrap_future(self._served[subject.name].call(with_model))

    async def answer(self, subject: Subject, function: Callable[[], dict[str, Any]]) -> JSONResponse:
        """The function's result, or what it refused."""
        try:
            async with asyncio.timeout(self._app.state.settings.request_timeout):
                return JSONResponse(await self.run(subject, function))
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        except TimeoutError:
            raise ApiError(504, self._too_slow()) from None

    async def lines(self, subject: Subject, events: Iterator[Event]) -> AsyncIterator[str]:
        """Each event as a line, computed when the one before it has been sent: others get their turns."""
        try:
            async with asyncio.timeout(self._app.state.settings.request_timeout):
                while (event := await self.run(subject, lambda: next(events, None))) is not None:
                    yield json.dumps(event, ensure_ascii=False) + "\n"
        except TimeoutError:
            yield _failed(504, self._too_slow())
        except Exception:
            logging.getLogger(__name__).exception("asking %s failed", subject.name)
            yield _failed(500, "The server failed at this question; its log says where.")

    def _too_slow(self) -> str:
        return f"no answer within {self._app.state.settings.request_timeout:g} seconds (--request_timeout)"


def _failed(status: int, message: str) -> str:
    return json.dumps({"event": "error", "status": status, "message": message}) + "\n"
