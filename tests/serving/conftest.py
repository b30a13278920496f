"""A real server in a thread of this process, on a free port, with tiny random models."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn

from latentplan.serving.app import create_app
from latentplan.serving.settings import ServeSettings


@pytest.fixture(scope="session")
def tiny_models(make_system, as_loaded):
    """A random ATP-Latent model and a random CoT model."""
    return {"atp": as_loaded(make_system("atp_latent")), "cot": as_loaded(make_system("cot", seed=1))}


@pytest.fixture(scope="session")
def running_server():
    """`with running_server(models, folders, **settings) as url`: an application behind uvicorn."""

    @contextmanager
    def run(models, folders=None, **settings):
        app = create_app(models, ServeSettings(**settings), folders)
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()

    return run
