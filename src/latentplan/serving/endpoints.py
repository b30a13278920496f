"""The two endpoints that answer: from a request's body to its answer, whole or streamed.

A client may send its body slowly or not at all, and may go away before it has its answer.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress

import torch
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from latentplan.modeling.sampling import Sampling
from latentplan.rollout.continuous_batching import Row, rows_of
from latentplan.serving.model_worker import Delta, Event, Finished, Job, ModelWorker
from latentplan.serving.prompts import Questions, question_of
from latentplan.serving.protocol import ApiError, ChatRequest, CompletionRequest, parse
from latentplan.serving.protocol import Request as ApiRequest
from latentplan.serving.responses import CHAT, COMPLETION, Answer, Shape, event
from latentplan.serving.settings import ServeSettings

CLIENT_LEFT = 499
"""The status that is counted where nobody is left to read it."""
_LARGEST_BODY, _BODY_SECONDS = 2**20, 30.0


async def read_body(request: Request) -> bytes:
    """Returns a request's body.

    Raises:
        ApiError: it is too large, comes too slowly, or the client has gone.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _LARGEST_BODY:
                    raise ApiError(413, f"the body is larger than {_LARGEST_BODY} bytes")
    except TimeoutError as error:
        raise ApiError(408, f"the body did not come within {_BODY_SECONDS:g} seconds") from error
    except ClientDisconnect as error:
        raise ApiError(CLIENT_LEFT, "the client has gone") from error
    return bytes(body)


async def client_leaves(request: Request) -> None:
    """Returns once the client has gone; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Completions:
    """The endpoints of completions.

    Args:
        workers: the models by name.
        settings: limits and defaults.
    """

    def __init__(self, workers: Mapping[str, ModelWorker], settings: ServeSettings):
        self.workers, self.settings = workers, settings
        self._questions = {name: Questions(each.model, settings) for name, each in workers.items()}

    async def chat(self, request: Request) -> Response:
        """Answers `/v1/chat/completions`."""
        body = parse(await read_body(request), ChatRequest)
        worker = find_model(self.workers, body.model)
        prompt = worker.model.reasoner.config.system_prompt
        question = question_of(body.messages, prompt, self.settings.last_message_only)
        param = f"messages[{len(body.messages) - 1}].content"
        return await self._answer(request, body, worker, [(question, param)], CHAT)

    async def complete(self, request: Request) -> Response:
        """Answers `/v1/completions`."""
        body = parse(await read_body(request), CompletionRequest)
        worker = find_model(self.workers, body.model)
        prompts = [(prompt, f"prompt[{index}]") for index, prompt in enumerate(body.prompt)]
        return await self._answer(request, body, worker, prompts, COMPLETION)

    async def _answer(
        self,
        request: Request,
        body: ApiRequest,
        worker: ModelWorker,
        prompts: Sequence[tuple[str, str]],
        shape: Shape,
    ) -> Response:
        seed = secrets.randbelow(2**31) if body.seed is None else body.seed
        rows = self._rows(body, worker, prompts, seed)
        answer = Answer(
            shape,
            worker.name,
            [prompt for prompt, _ in prompts for _ in range(body.n)],
            seed,
            body.latentplan.plan,
            prompt_tokens=sum(len(row.question_ids) for row in rows[:: body.n]),
        )
        events: asyncio.Queue[Event] = asyncio.Queue()
        job = Job(rows, body.stop, body.latentplan.plan, body.stream, into_queue(events))
        worker.submit(job)
        if body.stream:
            stream = self._stream(worker, job, answer, events, body.include_usage)
            return StreamingResponse(stream, media_type="text/event-stream", headers=_STREAM_HEADERS)
        return await self._whole(request, worker, job, answer, events)

    def _rows(
        self, body: ApiRequest, worker: ModelWorker, prompts: Sequence[tuple[str, str]], seed: int
    ) -> list[Row]:
        """Returns a row for each trajectory. Raises ApiError for what is over the limits."""
        count = len(prompts) * body.n
        if count > self.settings.max_samples:
            raise ApiError(
                400,
                f"{count} answers are requested; this server gives at most {self.settings.max_samples} to "
                "one request (--max_samples)",
                param="n",
            )
        temperature = self.settings.temperature if body.temperature is None else body.temperature
        latent = body.latentplan.latent_temperature
        latent = temperature if latent is None else latent
        if body.n > 1 and temperature == latent == 0:
            raise ApiError(
                400, f"{body.n} greedy answers are all the same: set temperature above 0", param="n"
            )
        length = self._length(body, worker)
        questions, rows = self._questions[worker.name], []
        for index, (prompt, param) in enumerate(prompts):
            ids = questions.read(prompt, param)
            sampling = Sampling(temperature, latent, min(length, questions.room(ids)))
            rows += rows_of(ids, seed, index, body.n, sampling)
        for row in rows:
            row.max_tokens = body.max_completion_tokens
        return rows

    def _length(self, body: ApiRequest, worker: ModelWorker) -> int:
        """Returns the text tokens of a trajectory at most. Raises ApiError if more are requested."""
        longest = self.settings.max_new_tokens
        latents = worker.model.reasoner.config.num_slots
        limits = [("max_tokens", body.max_tokens, longest)]
        limits += [("max_completion_tokens", body.max_completion_tokens, longest + latents)]
        for name, wanted, allowed in limits:
            if wanted is not None and wanted > allowed:
                raise ApiError(
                    400,
                    f"{name} is {wanted}; this server writes at most {longest} tokens (--max_new_tokens)",
                    param=name,
                )
        given = [limit for _, limit, _ in limits if limit is not None]
        return min(*(given or [self.settings.default_new_tokens]), longest)

    async def _whole(
        self,
        request: Request,
        worker: ModelWorker,
        job: Job,
        answer: Answer,
        events: asyncio.Queue[Event],
    ) -> Response:
        gathering = asyncio.ensure_future(gather(events, len(job.rows)))
        leaving = asyncio.ensure_future(client_leaves(request))
        try:
            await asyncio.wait(
                {gathering, leaving}, timeout=self._left(job), return_when=asyncio.FIRST_COMPLETED
            )
            if gathering.done():
                return JSONResponse(answer.whole(gathering.result()))
            if leaving.done():
                return Response(status_code=CLIENT_LEFT)
            raise self._too_late()
        finally:
            if not gathering.done():
                worker.cancel(job)
                gathering.cancel()
            leaving.cancel()

    async def _stream(
        self,
        worker: ModelWorker,
        job: Job,
        answer: Answer,
        events: asyncio.Queue[Event],
        include_usage: bool,
    ) -> AsyncIterator[bytes]:
        finished: list[Finished] = []
        try:
            if answer.shape.chat:
                yield b"".join(answer.opening(index) for index in range(len(job.rows)))
            while len(finished) < len(job.rows):
                item = await asyncio.wait_for(events.get(), self._left(job))
                if isinstance(item, Delta):
                    yield answer.delta(item.index, item.text)
                elif isinstance(item, Finished):
                    finished.append(item)
                    yield answer.ending(item)
                else:
                    raise _failure(item)
            yield answer.closing(finished, include_usage)
        except TimeoutError:
            yield event(self._too_late().body())
        except ApiError as error:
            yield event(error.body())
        finally:
            if len(finished) < len(job.rows):
                worker.cancel(job)

    def _left(self, job: Job) -> float:
        """Returns the seconds until the job is too late."""
        return max(0.0, job.since + self.settings.request_timeout - time.monotonic())

    def _too_late(self) -> ApiError:
        return ApiError(
            504,
            f"no answer within {self.settings.request_timeout:g} seconds (--request_timeout): ask for fewer "
            "or shorter answers, or later",
            code="timeout",
        )


def find_model(workers: Mapping[str, ModelWorker], name: str | None) -> ModelWorker:
    """Returns the model of this name; without a name the only one. Raises ApiError if there is none."""
    if name is None and len(workers) == 1:
        return next(iter(workers.values()))
    known = ", ".join(workers)
    if name is None:
        raise ApiError(400, f"model is missing; there are {known}", "model", "missing_parameter")
    if name not in workers:
        raise ApiError(404, f"there is no model {name!r}; there are {known}", "model", "model_not_found")
    return workers[name]


def into_queue(events: asyncio.Queue[Event]) -> Callable[[Event], None]:
    """Puts events into a queue of this event loop, from any thread."""
    loop = asyncio.get_running_loop()

    def deliver(item: Event) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(events.put_nowait, item)

    return deliver


async def gather(events: asyncio.Queue[Event], count: int) -> list[Finished]:
    """Returns all finished trajectories, in their order. Raises ApiError if the computation failed."""
    finished: list[Finished] = []
    while len(finished) < count:
        item = await events.get()
        if isinstance(item, Finished):
            finished.append(item)
        elif isinstance(item, Exception):
            raise _failure(item)
    return sorted(finished, key=lambda each: each.index)


def _failure(error: Exception) -> ApiError:
    if isinstance(error, torch.OutOfMemoryError):
        return ApiError(
            503,
            "the device's memory is full: ask for fewer answers, or lower --max_batch_size",
            code="out_of_memory",
            headers={"Retry-After": "5"},
        )
    return ApiError(500, "the computation failed; the server's log says where", code="internal_error")
