"""OpenAI's HTTP interface: the fields that clients may send, and errors as its clients understand them.

A field that would change the answer and is not supported is refused; where it has the value that changes
nothing, it is accepted. Fields that never change an answer are ignored. An error is a status and
`{"error": {message, type, param, code}}`.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NoReturn, TypeVar

import fastapi
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from starlette.exceptions import HTTPException

_TYPES = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error", 504: "timeout_error"}


class ApiError(Exception):
    """What is wrong with a request, or why the server does not answer it.

    Args:
        status: of HTTP.
        message: what is wrong, where, and what to do.
        param: the field that is meant.
        code: a word for programs.
        headers: to be sent along, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """Returns the error as JSON."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Returns the error as a response."""
        return JSONResponse(self.body(), self.status, self.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Has the application answer every error in this format, also those of unknown addresses."""

    @app.exception_handler(ApiError)
    async def api_error(request: fastapi.Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(request: fastapi.Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return ApiError(error.status_code, message, headers=dict(error.headers or {})).response()

    @app.exception_handler(Exception)
    async def unexpected(request: fastapi.Request, error: Exception) -> JSONResponse:
        return ApiError(500, "the server failed at this request; its log says where").response()


IGNORED = frozenset(
    [
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "parallel_tool_calls",
    ]
)
_NO_TOOLS = "the model answers questions and calls no tools"
_NO_LOGPROBS = "log-probabilities are not given"
_NO_PENALTY = "tokens are drawn from the model's own distribution at a temperature"
_TEXT_ONLY = "the model writes plain text"
UNSUPPORTED: dict[str, tuple[list[Any], str]] = {
    "tools": ([[]], _NO_TOOLS),
    "tool_choice": (["none", "auto"], _NO_TOOLS),
    "functions": ([[]], _NO_TOOLS),
    "function_call": (["none", "auto"], _NO_TOOLS),
    "web_search_options": ([], _NO_TOOLS),
    "logprobs": ([False], _NO_LOGPROBS),
    "top_logprobs": ([0], _NO_LOGPROBS),
    "top_p": ([1, 1.0], _NO_PENALTY),
    "frequency_penalty": ([0, 0.0], _NO_PENALTY),
    "presence_penalty": ([0, 0.0], _NO_PENALTY),
    "logit_bias": ([{}], _NO_PENALTY),
    "response_format": ([{"type": "text"}], _TEXT_ONLY),
    "modalities": ([["text"]], _TEXT_ONLY),
    "audio": ([], _TEXT_ONLY),
    "prediction": ([], "nothing is predicted ahead"),
    "reasoning_effort": ([], "the model itself decides how many latents it uses"),
    "verbosity": ([], "the model itself decides how much it writes"),
    "best_of": ([1], "answers are not ranked; ask for several with n"),
    "echo": ([False], "the answer does not repeat the question"),
    "suffix": ([""], "the model writes nothing in front of a given text"),
}
"""Fields that are refused unless they have one of the values given here, and why."""


_COLDEST, _HOTTEST = 1e-3, 100


def not_almost_zero(temperature: float | None) -> float | None:
    """Returns the temperature, where logits can be divided by it; 0 and None are no divisors. Raises
    ValueError.
    """
    if temperature is not None and 0 < temperature < _COLDEST:
        raise ValueError(f"below {_COLDEST} logits overflow; 0 takes the most probable")
    return temperature


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(_Body):
    """`stream_options`."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Extension(_Body):
    """`latentplan`: what OpenAI's interface has no field for.

    Attributes:
        plan: whether to read the plan and score its coherence.
        latent_temperature: scale of σ; as `temperature` where it is None.
    """

    plan: bool = False
    latent_temperature: float | None = Field(default=None, ge=0, le=_HOTTEST)


class Request(_Body):
    """What both endpoints have in common."""

    model: str | None = None
    n: int = Field(default=1, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=_HOTTEST)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: list[str] = Field(default_factory=list, max_length=4)
    stream: bool = False
    stream_options: StreamOptions | None = None
    latentplan: Extension = Field(default_factory=Extension)

    _not_almost_zero = field_validator("temperature")(not_almost_zero)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_or_several(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, stop: list[str]) -> list[str]:
        if "" in stop:
            raise ValueError("an empty text ends every answer before it begins")
        return stop

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for requests with stream: true")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class TextPart(_Body):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Message(_Body):
    """One message of a conversation; fields other than role and content are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: list[TextPart] = Field(default_factory=list)

    @field_validator("content", mode="before")
    @classmethod
    def _in_parts(cls, content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content or []

    @property
    def text(self) -> str:
        """Its content as one text."""
        return "".join(part.text for part in self.content)


class ChatRequest(Request):
    """The body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)


class CompletionRequest(Request):
    """The body of `/v1/completions`."""

    prompt: list[str] = Field(min_length=1)

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt_or_several(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and any(isinstance(part, int | list) for part in prompt):
            raise ValueError("token ids are not taken: send the question as text")
        return [prompt] if isinstance(prompt, str) else prompt


Kind = TypeVar("Kind", bound=Request)


def parse(body: bytes, kind: type[Kind]) -> Kind:
    """Returns a request's body, checked.

    Raises:
        ApiError: 400, it is no JSON, or says something that is wrong or not supported.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(values, dict):
        raise ApiError(400, f"the body must be a JSON object, not {_named(values)}", code="invalid_json")
    try:
        return kind.model_validate(_supported(values))
    except ValidationError as error:
        _refuse(error)


def _supported(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that mean something here. Raises ApiError for those that are not supported."""
    kept = {}
    for name, value in values.items():
        if value is None or name in IGNORED:
            continue
        if name not in UNSUPPORTED:
            kept[name] = value
            continue
        neutral, reason = UNSUPPORTED[name]
        # As JSON: in Python 0 and False are equal.
        if json.dumps(value) not in map(json.dumps, neutral):
            raise ApiError(
                400, f"{name} is not supported: {reason}", param=name, code="unsupported_parameter"
            )
    return kept


def _refuse(error: ValidationError) -> NoReturn:
    """Raises an ApiError of the first thing that is wrong, in words."""
    first = error.errors(include_url=False)[0]
    where = _path(first["loc"])
    if first["type"] == "extra_forbidden":
        raise ApiError(400, f"there is no field {where}", param=where, code="unknown_parameter") from error
    if first["type"] == "missing":
        raise ApiError(400, f"{where} is missing", param=where, code="missing_parameter") from error
    what = first["msg"].removeprefix("Value error, ")
    message = f"{where}: {what}" if where else what
    raise ApiError(400, message, param=where or None, code="invalid_value") from error


def _path(parts: tuple[int | str, ...]) -> str:
    """Writes `messages[0].content` from the parts of a location."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _named(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
