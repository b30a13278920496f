"""Metrics of the server, as Prometheus reads them at `/metrics`."""

from __future__ import annotations

import time

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEASURED_PATHS = ("/v1/chat/completions", "/v1/completions")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LATENTS = (0, 1, 2, 4, 6, 8, 10, 12, 16, 20, 32)


class Metrics:
    """The counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "latentplan_requests", "Requests answered.", ["endpoint", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "latentplan_request_seconds",
            "From a request to the end of its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.waiting = Gauge(
            "latentplan_waiting", "Trajectories that wait for a place.", ["model"], registry=registry
        )
        self.running = Gauge(
            "latentplan_running", "Trajectories that are being computed.", ["model"], registry=registry
        )
        self.waiting_seconds = Histogram(
            "latentplan_waiting_seconds",
            "How long a trajectory waited for its place.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "latentplan_batch_size", "Trajectories in a pass.", ["model"], buckets=_ROWS, registry=registry
        )
        self.latents = Histogram(
            "latentplan_latents", "Latents of a trajectory.", ["model"], buckets=_LATENTS, registry=registry
        )
        self.tokens = Counter(
            "latentplan_tokens",
            "Tokens of questions, latent tokens and text tokens.",
            ["model", "kind"],
            registry=registry,
        )
        self.finished = Counter(
            "latentplan_trajectories",
            "Trajectories by how they ended.",
            ["model", "finish_reason"],
            registry=registry,
        )

    def response(self) -> Response:
        """Returns all of them as text."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class CountRequests:
    """Counts and times the requests for answers, to the end of a streamed one.

    Args:
        app: what is behind it.
        metrics: where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http" or scope["path"] not in MEASURED_PATHS:
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - started
            self.metrics.requests.labels(scope["path"], str(status)).inc()
            self.metrics.request_seconds.labels(scope["path"]).observe(seconds)
