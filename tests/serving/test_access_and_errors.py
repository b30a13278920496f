"""Who may ask, and what is refused: always in OpenAI's format, with a reason."""

from __future__ import annotations

import http.client

import openai
import pytest

ASKED = {"model": "atp", "messages": [{"role": "user", "content": "the dial starts at 7 . where is it ?"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def locked(open_server, tiny_models):
    with open_server(tiny_models, api_key="sesame") as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "message"),
    [(None, "an API key is needed"), ("Bearer other", "the API key is wrong"), ("sesame", "is wrong")],
)
def test_without_the_key_there_is_no_answer_but_health(locked, sent, message):
    headers = {"Authorization": sent} if sent else {}
    for path in ("/v1/models", "/metrics", "/v1/nothing"):
        status, _, body = locked.send(path, headers=headers)
        assert status == 401
        assert message in body["error"]["message"]
    assert locked.send("/health", headers=headers)[0] == 200
    assert locked.send(CHAT, ASKED, headers)[0] == 401


def test_with_the_key_the_client_is_let_in(locked):
    assert [model.id for model in locked.client.models.list()] == ["atp", "cot"]
    stranger = openai.OpenAI(base_url=f"{locked.url}/v1", api_key="other", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="the API key is wrong"):
        stranger.models.list()


@pytest.mark.parametrize("sent", ["bearer sesame", "BEARER sesame", "Bearer  sesame"])
def test_the_scheme_of_the_key_is_read_in_any_case(locked, sent):
    assert locked.send("/v1/models", headers={"Authorization": sent})[0] == 200


@pytest.mark.parametrize("sent", ["Basic sesame", "Bearer sesame2", "Bearer", "Bearersesame", "Bearer sés"])
def test_other_schemes_and_keys_are_refused(locked, sent):
    assert locked.send("/v1/models", headers={"Authorization": sent.encode()})[0] == 401


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics", "/v1/models", "/"])
def test_head_says_what_get_would(server, path):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.request("HEAD", path)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:1", "[::1]:8000", "[::1]"])
def test_a_server_of_this_machine_is_called_by_its_names(server, host):
    assert server.send("/v1/models", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", "2130706433", ""]
)
def test_other_names_are_refused(server, host):
    """A page could have its own name resolved to this machine, and read what it says."""
    for path in ("/v1/models", "/health", "/"):
        status, _, body = server.send(path, headers={"Host": host})
        assert (status, body["error"]["code"]) == (400, "invalid_host")
        assert "--allowed_hosts" in body["error"]["message"]


def test_pages_of_other_addresses_are_refused(server):
    own = server.url.removeprefix("http://")
    assert server.send(CHAT, ASKED, {"Origin": server.url})[0] == 200
    for origin in ("https://evil.example", "null", f"http://evil.example/{own}", "http://localhost:1"):
        status, _, body = server.send(CHAT, ASKED, {"Origin": origin})
        assert (status, body["error"]["code"]) == (403, "invalid_origin")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""]
)
def test_what_a_form_could_send_is_refused(server, kind):
    for path in (CHAT, "/v1/completions", "/inspect/ask"):
        status, _, body = server.send(path, ASKED, {"Content-Type": kind})
        assert (status, body["error"]["code"]) == (415, "unsupported_media_type")
    assert server.send(CHAT, ASKED, {"Content-Type": "Application/JSON; charset=utf-8"})[0] == 200


def test_pages_that_were_named_may_ask_with_a_preflight(open_server, tiny_models):
    page = "https://page.example"
    with open_server(tiny_models, api_key="sesame", allowed_origins=(page,), allowed_hosts=("*",)) as running:
        connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=20)
        preflight = {
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        connection.request("OPTIONS", CHAT, headers=preflight)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == page
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
        connection.request("OPTIONS", CHAT, headers={**preflight, "Origin": "https://other.example"})
        answer = connection.getresponse()
        assert answer.status == 403
        key = {"Authorization": "Bearer sesame"}
        status, headers, _ = running.send(CHAT, ASKED, {"Origin": page, "Host": "any.example", **key})
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, page)
        assert running.send(CHAT, ASKED, {"Origin": page})[0] == 401


def test_unknown_address_and_method(server):
    status, _, body = server.send("/v1/nothing")
    assert (status, body["error"]["message"]) == (404, "GET /v1/nothing: Not Found")
    assert body["error"]["type"] == "not_found_error"
    assert server.send(CHAT)[0] == 405


def test_unknown_model(server):
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'; there are atp, cot") as caught:
        server.client.chat.completions.create(**{**ASKED, "model": "gpt"})
    assert caught.value.code == "model_not_found"
    assert server.send("/v1/models/gpt")[0] == 404
    assert server.client.models.retrieve("cot").id == "cot"


def user(content):
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        ({"model": None}, "model is missing; there are atp, cot", "model"),
        ({"messages": None}, "messages is missing", "messages"),
        ({"messages": []}, "messages: List should have at least 1 item", "messages"),
        (user(" \n"), "the question is empty", "messages[0].content"),
        (user("which banana is it ?"), "no word for 'which', 'banana'", "messages[0].content"),
        (user("where <|end-latent|> is it ?"), "holds '<|end-latent|>'", "messages[0].content"),
        (user("the dial " * 600), "the question is too long: 1201 tokens", "messages[0].content"),
        (user("x" * 40000), "the question is too long: 40000 characters", "messages[0].content"),
        (user("\ud800"), "not valid Unicode", "messages[0].content"),
        (
            user([{"type": "image_url", "image_url": {"url": "x"}}]),
            "content[0].type: Input should be 'text'",
            None,
        ),
        ({"messages": [{"role": "assistant", "content": "9"}]}, "the last message must be", None),
        ({"n": 2}, "2 greedy answers are all the same", "n"),
        ({"n": 0}, "n: Input should be greater than or equal to 1", "n"),
        ({"n": 65, "temperature": 1}, "65 answers are requested; this server gives at most 64", "n"),
        ({"temperature": -1}, "temperature: Input should be greater", "temperature"),
        ({"temperature": "hot"}, "temperature: Input should be a valid number", "temperature"),
        ({"seed": 2**63}, "seed: Input should be less than", "seed"),
        ({"max_tokens": 513}, "max_tokens is 513; this server writes at most 512", "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens: Input", "max_completion_tokens"),
        ({"stop": ["a", ""]}, "stop: an empty text ends every answer", "stop"),
        ({"stop": ["a"] * 5}, "stop: List should have at most 4 items", "stop"),
        ({"stream_options": {"include_usage": True}}, "only for requests with stream", None),
        ({"tools": [{"type": "function"}]}, "tools is not supported: the model answers", "tools"),
        ({"logprobs": True}, "logprobs is not supported", "logprobs"),
        ({"top_p": 0.9}, "top_p is not supported: tokens are drawn", "top_p"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported", "response_format"),
        ({"temperature": 1e-9}, "temperature: below 0.001 logits overflow", "temperature"),
        ({"colour": "red"}, "there is no field colour", "colour"),
        ({"\ud800": 1}, "unable to parse raw data as a unicode string", None),
        ({"latentplan": {"plans": True}}, "there is no field latentplan.plans", "latentplan.plans"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(server, change, message, param):
    status, _, body = server.send(CHAT, {**ASKED, **change})
    assert status == 400
    assert message in body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"
    if param is not None:
        assert body["error"]["param"] == param


def test_what_changes_nothing_is_accepted(server):
    harmless = {
        "user": "me",
        "metadata": {"a": "b"},
        "top_p": 1,
        "frequency_penalty": 0.0,
        "logprobs": False,
        "tools": None,
        "messages": [{**ASKED["messages"][0], "annotations": [], "name": "me"}],
        "response_format": {"type": "text"},
    }
    assert server.send(CHAT, {**ASKED, **harmless})[0] == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100000, "the body is not JSON"),
        (b"[1]", "must be a JSON object, not a list"),
        (b"null", "must be a JSON object, not null"),
    ],
)
def test_bodies_that_are_no_request(server, body, message):
    status, _, answer = server.send(CHAT, body)
    assert status == 400
    assert message in answer["error"]["message"]


def test_nan_is_no_temperature(server):
    body = b'{"model": "atp", "prompt": "where is it ?", "temperature": NaN}'
    assert server.send("/v1/completions", body)[0] == 400


def test_a_body_that_is_too_large(server):
    status, _, answer = server.send(CHAT, b" " * (2**20 + 1))
    assert (status, answer["error"]["type"]) == (413, "invalid_request_error")


def test_token_ids_as_a_prompt(server):
    status, _, answer = server.send("/v1/completions", {"model": "atp", "prompt": [1, 2]})
    assert status == 400
    assert "token ids are not taken" in answer["error"]["message"]


def test_health_and_readiness(server):
    for path in ("/health", "/health/live", "/health/ready"):
        assert server.send(path)[::2] == (200, {"status": "ok"})
