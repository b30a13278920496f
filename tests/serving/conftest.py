"""A real server in a thread of this process, on a free port, with tiny random models."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from latentplan.serving.connections import make_server
from latentplan.serving.server import create_app
from latentplan.serving.settings import ServeSettings


@dataclass
class Running:
    """A server that is running: its address, its application, and a client of it."""

    url: str
    app: Any
    client: openai.OpenAI

    def worker(self, name="atp"):
        return self.app.state.workers[name]

    @contextmanager
    def busy(self, name="atp"):
        """Has a model's thread do nothing as long as the block runs."""
        go, started = threading.Event(), threading.Event()
        self.worker(name).call(lambda model: (started.set(), go.wait(20)))
        assert started.wait(10)
        try:
            yield
        finally:
            go.set()

    def send(self, path, body=None, headers=None):
        """Status, headers and JSON of a GET, or of a POST where there is a body."""
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        json_body = {} if data is None else {"Content-Type": "application/json"}
        sent = {**json_body, **(headers or {})}
        request = urllib.request.Request(self.url + path, data=data, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.load(error)


@pytest.fixture(scope="session")
def tiny_models(make_system, as_loaded):
    """A random ATP-Latent model and a random CoT model."""
    return {"atp": as_loaded(make_system("atp_latent")), "cot": as_loaded(make_system("cot", seed=1))}


@pytest.fixture(scope="session")
def open_server():
    """`with open_server(models, folders, **settings) as running`: an application behind uvicorn."""

    @contextmanager
    def run(models, folders=None, **settings):
        app = create_app(models, ServeSettings(**settings), folders)
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        server = make_server(app, 10)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        key = settings.get("api_key", "none")
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=30)
        try:
            yield Running(url, app, client)
        finally:
            client.close()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()

    return run


@pytest.fixture(scope="session")
def running_server(open_server):
    """`with running_server(models, folders, **settings) as url`: the same, where the address is enough."""

    @contextmanager
    def run(models, folders=None, **settings):
        with open_server(models, folders, **settings) as running:
            yield running.url

    return run


@pytest.fixture(scope="session")
def questions(clock_problems):
    """Different questions of the clock world."""
    return list(dict.fromkeys(problem.question for problem in clock_problems))


@pytest.fixture(scope="module")
def server(open_server, tiny_models):
    """A server with both tiny models and the default settings, but short answers."""
    with open_server(tiny_models, default_new_tokens=12) as running:
        yield running
