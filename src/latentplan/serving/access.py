"""The API key: who may ask."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from latentplan.serving.errors import ApiError

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
