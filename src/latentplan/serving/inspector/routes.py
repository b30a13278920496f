"""The inspector over HTTP: the page at `/`, its files under `/inspect/page/`, and the routes that it calls.

| route | what |
| --- | --- |
| `GET /inspect/setup` | the models, questions to pick, limits |
| `POST /inspect/ask` | one model's answer, a line of JSON for each step and token as it comes |
| `POST /inspect/sample` | k samples and their votes |
| `POST /inspect/intervene` | the answer with changed latents |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError

from latentplan.serving.endpoints import read_body
from latentplan.serving.inspector.handlers import AskBody, Handlers, InterveneBody, SampleBody
from latentplan.serving.inspector.inspected_model import InspectedModel
from latentplan.serving.model_worker import ModelWorker
from latentplan.serving.protocol import ApiError

PAGE = Path(__file__).parent / "page"
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
_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Body = TypeVar("Body", bound=AskBody)


def add_inspector(
    app: FastAPI, models: Mapping[str, InspectedModel], workers: Mapping[str, ModelWorker]
) -> None:
    """Puts the page and its routes on the application.

    Args:
        app: `app.state.settings` holds the server's limits.
        models: by the name under which they are served.
        workers: whose threads compute.
    """
    handlers = Handlers(app.state.settings, models, workers)
    app.mount("/inspect/page", _Files(directory=PAGE))

    @app.api_route("/", methods=["GET", "HEAD"])
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=_HEADERS)

    @app.get("/inspect/setup")
    async def setup() -> dict[str, Any]:
        return handlers.setup()

    @app.post("/inspect/ask")
    async def ask(request: Request) -> StreamingResponse:
        lines = handlers.ask(await _body(request, AskBody))
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=_UNBUFFERED)

    @app.post("/inspect/sample")
    async def sample(request: Request) -> JSONResponse:
        return JSONResponse(await handlers.sample(await _body(request, SampleBody)))

    @app.post("/inspect/intervene")
    async def intervene(request: Request) -> JSONResponse:
        return JSONResponse(await handlers.intervene(await _body(request, InterveneBody)))


async def _body(request: Request, kind: type[Body]) -> Body:
    """Reads what was sent, of a limited size. Raises ApiError where it is something else."""
    try:
        return kind.model_validate_json(await read_body(request))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ApiError(400, f"{where}: {first['msg']}" if where else first["msg"], where or None) from error


class _Files(StaticFiles):
    """The page's files, with the page's headers."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        """Adds the page's headers to what `StaticFiles` returns."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response
