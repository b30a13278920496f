"""Queue, time and places: what is refused when there is too much, and what becomes free again."""

from __future__ import annotations

import http.client
import json
import threading
import time

import openai
import pytest

from latentplan.serving.model_worker import ModelWorker
from latentplan.serving.protocol import ApiError
from latentplan.serving.settings import ServeSettings

CHAT = "/v1/chat/completions"


def asking(question, **fields):
    return {"model": "atp", "messages": [{"role": "user", "content": question}], **fields}


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def narrow(open_server, tiny_models):
    """A server in which 4 trajectories may wait, for at most a second."""
    with open_server(
        tiny_models, max_queue=4, max_samples=4, request_timeout=1.0, default_new_tokens=8
    ) as running:
        yield running


def test_a_full_queue_is_a_503_that_says_when_to_come_again(narrow, questions):
    answers = []
    with narrow.busy():
        waiting = threading.Thread(
            target=lambda: answers.append(narrow.send(CHAT, asking(questions[0], n=3, temperature=1)))
        )
        waiting.start()
        wait_until(lambda: len(narrow.worker()._waiting) == 3)
        status, headers, body = narrow.send(CHAT, asking(questions[1], n=2, temperature=1))
        assert (status, headers["Retry-After"], body["error"]["code"]) == (503, "1", "queue_full")
        with pytest.raises(openai.InternalServerError, match="too many questions wait for atp already"):
            narrow.client.chat.completions.create(**asking(questions[1], n=2, temperature=1))
        assert narrow.send(CHAT, {**asking(questions[1]), "model": "cot"})[0] == 200
    waiting.join(10)
    assert answers[0][0] == 200
    assert narrow.send(CHAT, asking(questions[1], n=2, temperature=1))[0] == 200


def test_too_late_is_a_504_and_frees_the_place(narrow, questions):
    with narrow.busy():
        status, _, body = narrow.send(CHAT, asking(questions[0]))
        assert (status, body["error"]["type"]) == (504, "timeout_error")
        assert "no answer within 1 seconds (--request_timeout)" in body["error"]["message"]
        assert len(narrow.worker()._waiting) == 0
    assert narrow.send(CHAT, asking(questions[0]))[0] == 200


def test_a_stream_that_is_too_late_ends_with_the_error(narrow, questions):
    with narrow.busy(), pytest.raises(openai.APIError, match="no answer within 1 seconds"):
        list(narrow.client.chat.completions.create(**asking(questions[0]), stream=True))
    wait_until(lambda: not narrow.worker()._waiting)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_place(server, questions, stream):
    with server.busy():
        host, _, port = server.url.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        body = json.dumps(asking(questions[0], n=4, temperature=1, stream=stream))
        connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
        wait_until(lambda: len(server.worker()._waiting) == 4)
        connection.sock.close()
        connection.close()
        wait_until(lambda: len(server.worker()._waiting) == 0)


def test_a_client_that_goes_away_leaves_the_running_batch(open_server, tiny_models, questions):
    with open_server(tiny_models, default_new_tokens=400, max_new_tokens=400) as running:
        stream = running.client.chat.completions.create(
            **asking(questions[0], n=2, temperature=1, seed=1), stream=True
        )
        next(iter(stream))
        wait_until(lambda: len(running.worker()._running) == 2)
        stream.close()
        wait_until(lambda: not running.worker()._running)
        tokens = running.app.state.metrics.tokens.labels("atp", "text")._value.get()
        assert tokens == 0  # nobody was told an ending


def test_a_failing_pass_is_a_500_and_the_next_request_is_answered(server, questions, monkeypatch, caplog):
    worker = server.worker()

    def broken(rows):
        raise RuntimeError("the device has gone")

    with monkeypatch.context() as patch:
        patch.setattr(worker._batch, "admit", broken)
        status, _, body = server.send(CHAT, asking(questions[0]))
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "the device has gone" in caplog.text
    assert server.send(CHAT, asking(questions[0]))[0] == 200


def test_what_a_model_s_thread_is_called_for_gets_its_result_or_its_error(server):
    worker = server.worker()
    assert worker.call(lambda model: model.reasoner.config.method).result(10) == "atp_latent"
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda model: 1 // 0).result(10)


def test_a_model_that_is_closed_takes_nothing_more(tiny_models):
    worker = ModelWorker("atp", tiny_models["atp"], ServeSettings())
    assert worker.ready
    last = worker.call(lambda model: "done")
    worker.close()
    assert (last.result(), worker.ready) == ("done", False)
    with pytest.raises(ApiError, match="being shut down"):
        worker.call(lambda model: None)


def test_metrics_count_what_was_asked(open_server, tiny_models, questions):
    with open_server(tiny_models, default_new_tokens=6) as running:
        asked = {"model": "atp", "prompt": questions[:2], "n": 3, "temperature": 1}
        answer = running.client.completions.create(**asked)
        running.send("/v1/completions", {"model": "atp", "prompt": " "})
        registry = running.app.state.metrics.registry
        endpoint = {"endpoint": "/v1/completions"}

        def value(name, **labels):
            return registry.get_sample_value(f"latentplan_{name}", labels)

        wait_until(lambda: value("request_seconds_count", **endpoint) == 2)  # counted once it has been sent
        assert value("requests_total", **endpoint, status="200") == 1
        assert value("requests_total", **endpoint, status="400") == 1
        usage = answer.usage
        latents = usage.completion_tokens_details.reasoning_tokens
        assert value("tokens_total", model="atp", kind="question") == usage.prompt_tokens
        assert value("tokens_total", model="atp", kind="latent") == latents
        assert value("tokens_total", model="atp", kind="text") == usage.completion_tokens - latents
        assert value("latents_count", model="atp") == value("waiting_seconds_count", model="atp") == 6
        assert value("waiting", model="atp") == value("running", model="atp") == 0
        assert value("batch_size_sum", model="atp") > 6
