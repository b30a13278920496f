"""The web application: models by name, and what is asked of them over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from latentplan import __version__
from latentplan.modeling.loading import LoadedModel
from latentplan.serving.access import RequireKey
from latentplan.serving.errors import add_error_handlers
from latentplan.serving.inspector.routes import add_inspector
from latentplan.serving.inspector.subjects import Subject, subject_of
from latentplan.serving.served import ServedModel
from latentplan.serving.settings import ServeSettings


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
    settings = settings or ServeSettings()
    served = {name: ServedModel(name, model, settings) for name, model in models.items()}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for each in served.values():
            each.close()

    # No page of FastAPI's own: it would load scripts from elsewhere.
    app = FastAPI(title="latentplan", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.served, app.state.settings = served, settings
    add_error_handlers(app)
    if settings.api_key is not None:
        app.add_middleware(RequireKey, api_key=settings.api_key)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    folders = folders or {}
    subjects = {
        name: subject_of(name, model, folders[name]) if name in folders else Subject(name, model)
        for name, model in models.items()
    }
    add_inspector(app, subjects, served)
    return app
