"""Connections of the server: a client that sends no request is cut off, and one that did is answered.

uvicorn waits for ever for the headers of a request: clients that send half of them take every file handle. It
also closes, when it is told to end, connections whose request nobody has read yet.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HTTPProtocol
else:
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HTTPProtocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as HTTPProtocol

HEADER_SECONDS = 10.0
"""How long a client may take to send the headers of a request."""
MOST_WAITING = 128
"""Connections without a whole request at most; of more, the one that has waited longest is cut off."""
_DRAIN_SECONDS = 1.0


class DeadlineProtocol(HTTPProtocol):
    """HTTP/1.1 whose clients have `HEADER_SECONDS` for the headers of a request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Starts the clock of the first request."""
        super().connection_made(transport)
        self._follow()

    def data_received(self, data: bytes) -> None:
        """Stops the clock once a request is there, and starts it where one has begun."""
        super().data_received(data)
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._stop()
        super().connection_lost(exc)

    def _follow(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)
            waiting = waiting_of(self.server_state)
            waiting[self] = None
            if len(waiting) > MOST_WAITING:
                next(iter(waiting)).transport.close()

    def _stop(self) -> None:
        waiting_of(self.server_state).pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def waiting_of(server_state: Any) -> dict[DeadlineProtocol, None]:
    """Returns the connections of a server that have not sent a whole request, the oldest first."""
    found: dict[DeadlineProtocol, None] = server_state.__dict__.setdefault("waiting", {})
    return found


class DrainingServer(uvicorn.Server):
    """A server that, told to end, still answers whoever has connected before."""

    async def shutdown(self, sockets: Any = None) -> None:
        """Stops listening, gives connections a moment to be read, and ends as uvicorn does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _DRAIN_SECONDS
        while _somebody_waits(sockets or []) and loop.time() < end:
            await asyncio.sleep(0.01)
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        while waiting_of(self.server_state) and loop.time() < end:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _somebody_waits(listening: Sequence[socket.socket]) -> bool:
    """Whether connections have not been accepted yet, which closing a socket would reset."""
    readable, _, _ = select.select(listening, [], [], 0)
    return bool(readable)


def make_server(app: Any, request_timeout: float) -> DrainingServer:
    """Returns the server of an application, which ends within `request_timeout` seconds or so."""
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=int(request_timeout) + 2, http=DeadlineProtocol
    )
    return DrainingServer(config)
