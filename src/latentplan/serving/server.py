"""The web application: models by name, and what is asked of them over HTTP.

The API key: who may ask.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from latentplan import __version__
from latentplan.modeling.loading import LoadedModel
from latentplan.serving.endpoints import Completions, find_model
from latentplan.serving.inspector.inspected_model import Subject, subject_of
from latentplan.serving.inspector.routes import add_inspector
from latentplan.serving.model_worker import ServedModel
from latentplan.serving.prometheus import CountRequests, Metrics
from latentplan.serving.protocol import ApiError, add_error_handlers
from latentplan.serving.settings import ServeSettings

OPEN_PATHS = frozenset(["/", "/health", "/health/live", "/health/ready"])
"""Paths that need no key: they show nothing that a model said."""
OPEN_FOLDER = "/inspect/page/"
"""The files of the inspector's page, which asks for the key."""


class RequireKey:
    """Refuses requests without the key, `Authorization: Bearer KEY`.

    Args:
        app: what is behind it.
        api_key: the key.
    """

    def __init__(self, app: ASGIApp, api_key: str):
        self.app = app
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with 401."""
        is_open = scope["type"] != "http" or scope["path"] in OPEN_PATHS
        if is_open or scope["path"].startswith(OPEN_FOLDER):
            return await self.app(scope, receive, send)
        sent = Headers(scope=scope).get("authorization", "")
        if hmac.compare_digest(sent.encode(), self._expected):
            return await self.app(scope, receive, send)
        wrong = "the API key is wrong" if sent else "an API key is needed, as Authorization: Bearer KEY"
        error = ApiError(401, wrong, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return await error.response()(scope, receive, send)


def create_app(
    models: Mapping[str, LoadedModel],
    settings: ServeSettings | None = None,
    folders: Mapping[str, Path] | None = None,
) -> FastAPI:
    """The application that serves these models.

    `app.state.served` holds a `ServedModel` for each name, `app.state.settings` the settings. Their threads
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
    served = {name: ServedModel(name, model, settings, metrics) for name, model in models.items()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for each in served.values():
            each.close()

    # No page of FastAPI's own: it would load scripts from elsewhere.
    app = FastAPI(title="latentplan", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.served, app.state.settings, app.state.metrics = served, settings, metrics
    add_error_handlers(app)
    if settings.api_key is not None:
        app.add_middleware(RequireKey, api_key=settings.api_key)
    app.add_middleware(CountRequests, metrics=metrics)
    _add_answers(app, Completions(served, settings))
    _add_models(app, served)
    _add_health(app, served, metrics)
    folders = folders or {}
    subjects = {
        name: subject_of(name, model, folders[name]) if name in folders else Subject(name, model)
        for name, model in models.items()
    }
    add_inspector(app, subjects, served)
    return app


def _add_answers(app: FastAPI, completions: Completions) -> None:
    # Not FastAPI's own reading of bodies: errors are to be in OpenAI's format, and sizes limited.
    app.add_route("/v1/chat/completions", completions.chat, methods=["POST"])
    app.add_route("/v1/completions", completions.complete, methods=["POST"])


def _add_models(app: FastAPI, served: Mapping[str, ServedModel]) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(each) for each in served.values()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _described(find_model(served, name))


def _described(served: ServedModel) -> dict[str, Any]:
    config = served.model.reasoner.config
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "latentplan",
        "latentplan": {
            "method": config.method,
            "max_latents": config.num_slots,
            "plans": served.model.step_decoder is not None or config.written_steps,
        },
    }


def _add_health(app: FastAPI, served: Mapping[str, ServedModel], metrics: Metrics) -> None:
    @app.get("/health")
    @app.get("/health/ready")
    async def ready(response: Response) -> dict[str, str]:
        if all(each.ready for each in served.values()):
            return {"status": "ok"}
        response.status_code = 503
        return {"status": "closing"}

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def measured() -> Response:
        return metrics.response()
