from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest


def fetch(url, headers=None):
    """Status and JSON of a GET."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def locked(running_server, tiny_models):
    with running_server(tiny_models, api_key="sesame") as url:
        yield url


def test_unknown_address_is_an_error_in_openai_s_format(locked):
    status, body = fetch(f"{locked}/v1/nothing", {"Authorization": "Bearer sesame"})
    assert status == 404
    assert body == {
        "error": {
            "message": "GET /v1/nothing: Not Found",
            "type": "not_found_error",
            "param": None,
            "code": None,
        }
    }


@pytest.mark.parametrize(
    ("sent", "message"),
    [(None, "an API key is needed"), ("Bearer other", "the API key is wrong"), ("sesame", "is wrong")],
)
def test_without_the_key_there_is_no_answer_but_health(locked, sent, message):
    headers = {"Authorization": sent} if sent else {}
    status, body = fetch(f"{locked}/v1/models", headers)
    assert status == 401
    assert message in body["error"]["message"]
    assert fetch(f"{locked}/health", headers) == (200, {"status": "ok"})
