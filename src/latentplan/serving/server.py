"""The web application: models by name, who may ask them, and the routes."""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from latentplan import __version__
from latentplan.modeling.loading import LoadedModel
from latentplan.serving.endpoints import Completions, find_model
from latentplan.serving.inspector.inspected_model import InspectedModel, inspected_model
from latentplan.serving.inspector.routes import add_inspector
from latentplan.serving.model_worker import ModelWorker
from latentplan.serving.prometheus import CountRequests, Metrics
from latentplan.serving.protocol import ApiError, add_error_handlers
from latentplan.serving.settings import ServeSettings

OPEN_PATHS = frozenset(["/", "/health", "/health/live", "/health/ready"])
"""Paths that need no key: they show nothing that a model said."""
_READ = ["GET", "HEAD"]
OPEN_FOLDER = "/inspect/page/"
"""The files of the inspector's page, which asks for the key."""


class CheckOrigin:
    """Refuses requests that other web pages have a browser send.

    A browser names in `Origin` the page that asks, and in `Host` the name that it called; neither can be
    changed by the page. What a form could send without asking, a body that is not JSON, is refused, too.

    Args:
        app: what is behind it.
        settings: which hosts and origins may ask.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings):
        self.app = app
        self._hosts = {host.strip("[]").lower() for host in settings.allowed_hosts}
        self._origins = {origin.lower() for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with 400, 403 or 415."""
        error = self._refused(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        app = self.app if error is None else error.response()
        await app(scope, receive, send)

    def _refused(self, method: str, headers: Headers) -> ApiError | None:
        called, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        host = re.sub(r":\d*$", "", called).strip("[]")
        if "*" not in self._hosts and host not in self._hosts:
            return ApiError(
                400, f"this server is not called {called!r}: --allowed_hosts adds a name", code="invalid_host"
            )
        same = origin.partition("://")[2] == called
        if origin and not same and not self._origins & {"*", origin}:
            return ApiError(
                403, f"pages of {origin} may not ask: --allowed_origins adds one", code="invalid_origin"
            )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            return ApiError(
                415,
                f"the body must be JSON, sent with Content-Type: application/json, not {kind or 'none'!r}",
                code="unsupported_media_type",
            )
        return None


class RequireKey:
    """Refuses requests without the key, `Authorization: Bearer KEY`.

    Args:
        app: what is behind it.
        api_key: the key.
    """

    def __init__(self, app: ASGIApp, api_key: str):
        self.app = app
        self._expected = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with 401."""
        is_open = scope["type"] != "http" or scope["path"] in OPEN_PATHS
        if is_open or scope["path"].startswith(OPEN_FOLDER):
            return await self.app(scope, receive, send)
        sent = Headers(scope=scope).get("authorization", "")
        scheme, _, key = sent.partition(" ")
        if hmac.compare_digest(key.strip().encode(), self._expected) and scheme.lower() == "bearer":
            return await self.app(scope, receive, send)
        wrong = "the API key is wrong" if sent else "an API key is needed, as Authorization: Bearer KEY"
        error = ApiError(401, wrong, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return await error.response()(scope, receive, send)


def create_app(
    models: Mapping[str, LoadedModel],
    settings: ServeSettings | None = None,
    folders: Mapping[str, Path] | None = None,
) -> FastAPI:
    """Yields the application that serves these models.

    `app.state.workers` holds a `ModelWorker` for each name, `app.state.settings` the settings. Their threads
    end when the application is shut down.

    Args:
        models: by the name under which clients ask for them, each ready on its device.
        settings: limits and defaults.
        folders: where each model was loaded from, for the inspector's examples; may be absent.

    Raises:
        ValueError: there are no models.
    """
    if not models:
        raise ValueError("there is no model to serve")
    settings, metrics = settings or ServeSettings(), Metrics()
    workers = {name: ModelWorker(name, model, settings, metrics) for name, model in models.items()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for each in workers.values():
            each.close()

    # No page of FastAPI's own: it would load scripts from elsewhere.
    app = FastAPI(title="latentplan", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.workers, app.state.settings, app.state.metrics = workers, settings, metrics
    add_error_handlers(app)
    if settings.api_key is not None:
        app.add_middleware(RequireKey, api_key=settings.api_key)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            max_age=600,
        )
    app.add_middleware(CheckOrigin, settings=settings)
    app.add_middleware(CountRequests, metrics=metrics)
    _add_answers(app, Completions(workers, settings))
    _add_models(app, workers)
    _add_health(app, workers, metrics)
    folders = folders or {}
    inspected = {
        name: inspected_model(name, model, folders[name]) if name in folders else InspectedModel(name, model)
        for name, model in models.items()
    }
    add_inspector(app, inspected, workers)
    return app


def _add_answers(app: FastAPI, completions: Completions) -> None:
    # Not FastAPI's own reading of bodies: errors are to be in OpenAI's format, and sizes limited.
    app.add_route("/v1/chat/completions", completions.chat, methods=["POST"])
    app.add_route("/v1/completions", completions.complete, methods=["POST"])


def _add_models(app: FastAPI, workers: Mapping[str, ModelWorker]) -> None:
    @app.api_route("/v1/models", methods=_READ)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(each) for each in workers.values()]}

    @app.api_route("/v1/models/{name:path}", methods=_READ)
    async def model(name: str) -> dict[str, Any]:
        return _described(find_model(workers, name))


def _described(worker: ModelWorker) -> dict[str, Any]:
    config = worker.model.reasoner.config
    return {
        "id": worker.name,
        "object": "model",
        "created": worker.created,
        "owned_by": "latentplan",
        "latentplan": {
            "method": config.method,
            "max_latents": config.num_slots,
            "plans": worker.model.step_decoder is not None or config.written_steps,
        },
    }


def _add_health(app: FastAPI, workers: Mapping[str, ModelWorker], metrics: Metrics) -> None:
    @app.api_route("/health", methods=_READ)
    @app.api_route("/health/ready", methods=_READ)
    async def ready(response: Response) -> dict[str, str]:
        if all(each.ready for each in workers.values()):
            return {"status": "ok"}
        response.status_code = 503
        return {"status": "closing"}

    @app.api_route("/health/live", methods=_READ)
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/metrics", methods=_READ)
    async def measured() -> Response:
        return metrics.response()
