"""Errors as OpenAI's clients understand them: a status, and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any

import fastapi
from fastapi import FastAPI
from fastapi.responses import JSONResponse
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
        """The error as JSON."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The error as a response."""
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
