"""Clients that send half a request, and clients that wait when the server is told to end."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
import uvicorn

from latentplan.serving import connections
from latentplan.serving.connections import make_server
from latentplan.serving.server import create_app
from latentplan.serving.settings import ServeSettings

HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
WHOLE = HALF + b"no\r\n\r\n"


def connected(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def is_closed(client):
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def status_of(client):
    return int(client.recv(4096).split()[1])


def test_half_requests_are_cut_off_after_a_while(server, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    silent, half, second = connected(server), connected(server), connected(server)
    half.sendall(HALF)
    second.sendall(WHOLE)
    assert status_of(second) == 200
    second.sendall(HALF)  # of another request, on the same connection
    assert all(map(is_closed, (silent, half, second)))


def test_a_request_that_comes_in_parts_is_answered(server, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 5.0)
    client = connected(server)
    for part in (HALF[:10], HALF[10:], b"no\r\n", b"\r\n"):
        client.sendall(part)
        time.sleep(0.02)
    assert status_of(client) == 200


def test_many_half_requests_keep_nobody_out(server, monkeypatch):
    monkeypatch.setattr(connections, "MOST_WAITING", 20)
    slow = [connected(server) for _ in range(60)]
    for client in slow:
        client.sendall(HALF)
    client = connected(server)
    client.sendall(WHOLE)
    assert status_of(client) == 200
    assert all(map(is_closed, slow[:30]))  # the oldest


def test_a_request_that_is_computed_is_not_cut_off(server, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.1)
    body = json.dumps({"model": "atp", "prompt": "where is it ?", "max_tokens": 4}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client = connected(server)
    with server.busy():
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.4)
    assert status_of(client) == 200


@pytest.mark.parametrize("count", [100])
def test_who_has_asked_before_the_end_is_answered(tiny_models, count):
    """Some of these requests have not been read, or their connections not been accepted, at the end."""
    app = create_app(tiny_models, ServeSettings(default_new_tokens=4))
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = make_server(app, 60)
    assert isinstance(server, uvicorn.Server)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    body = json.dumps({"model": "atp", "prompt": "where is it ?"}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    clients = [socket.create_connection(listening.getsockname(), timeout=60) for _ in range(count)]
    for client in clients:
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    server.should_exit = True
    assert [status_of(client) for client in clients] == [200] * count
    thread.join(20)
    assert not thread.is_alive()
