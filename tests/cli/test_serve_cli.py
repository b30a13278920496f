"""`latentplan serve` as a process: it opens, answers, finishes what is running, and ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from latentplan.cli.serve import model_names, serve

app = typer.Typer()
app.command()(serve)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_system, clock_tokenizer):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    make_system("cot").save_pretrained(folder / "model", clock_tokenizer)
    return folder


@pytest.fixture
def process(run):
    """The command with a free port; its address is in its output."""
    command = [
        sys.executable,
        "-m",
        "latentplan",
        "serve",
        str(run),
        "--port",
        "0",
        "--max_new_tokens",
        "900",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    yield started
    started.kill()
    started.communicate()


def test_sigterm_finishes_what_is_running_and_refuses_the_rest(process):
    lines = []
    while not (address := re.search(r"http://(127\.0\.0\.1):(\d+)/v1", "".join(lines))):
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    host, port = address[1], int(address[2])
    long = {"prompt": "where is it ?", "max_tokens": 200, "temperature": 1, "n": 2, "seed": 0}
    connection = http.client.HTTPConnection(host, port, timeout=60)
    _wait_for_health(host, port)
    connection.request("POST", "/v1/completions", json.dumps(long), {"Content-Type": "application/json"})
    answers = []
    reader = threading.Thread(target=lambda: answers.append(json.load(connection.getresponse())))
    reader.start()
    _wait_for_running(host, port)
    process.send_signal(signal.SIGTERM)
    reader.join(60)
    assert len(answers[0]["choices"]) == 2
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=5)


def _get(host, port, path):
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def _wait_for_health(host, port):
    for _ in range(200):
        try:
            assert json.loads(_get(host, port, "/health")) == {"status": "ok"}
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("it does not open")


def _wait_for_running(host, port):
    while 'latentplan_running{model="mine"} 2.0' not in _get(host, port, "/metrics"):
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NOWHERE"], "holds no latentplan model"),
        (["RUN", "RUN"], "two models are called 'mine'"),
        (["RUN", "--name", "a", "--name", "b"], "1 models and 2 names"),
        (["RUN", "--max_samples", "9", "--max_queue", "8"], "such a request would never be taken"),
        (["RUN", "--host", "no.such.host.invalid"], "cannot listen at no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served(run, tmp_path, arguments, message):
    words = [
        str(run) if word == "RUN" else str(tmp_path) if word == "NOWHERE" else word for word in arguments
    ]
    result = CliRunner().invoke(
        app, [*words, "--device", "cpu", *([] if "--host" in words else ["--port", "0"])]
    )
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_port_that_is_taken(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(app, [str(run), "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "Address already in use; choose another" in result.stderr


def test_without_the_extra_the_error_names_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(app, [str(run)])
    assert result.exit_code == 2
    assert "pip install -c constraints.txt -e '.[serve]'" in result.stderr


def test_names_of_models(tmp_path):
    folders = [Path("runs/sft"), Path("runs/rl/model")]
    assert model_names(folders, []) == ["sft", "rl"]
    assert model_names(folders, ["before", "after"]) == ["before", "after"]
