"""What a client does beside asking: it sends its body, in time or not, and it may go away."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from latentplan.serving.errors import ApiError

CLIENT_LEFT = 499
"""The status that is counted where nobody is left to read it."""
_LARGEST_BODY, _BODY_SECONDS = 2**20, 30.0


async def read_body(request: Request) -> bytes:
    """A request's body.

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
