import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from latentplan.modeling.sampling import Sampling
from latentplan.rollout.solve import solve
from latentplan.serving.inspector import handlers as desk
from latentplan.serving.inspector import routes
from latentplan.serving.inspector.inspected_model import InspectedModel
from latentplan.serving.inspector.views import tally
from latentplan.serving.server import create_app
from latentplan.serving.settings import ServeSettings


@pytest.fixture(scope="module")
def models(learnt, make_inspected):
    other = make_inspected("atp_latent", seed=7).model
    return {"learnt": learnt.model, "cot": make_inspected("cot").model, "other": other}


@pytest.fixture(scope="module")
def client(models):
    app = create_app(models, ServeSettings(max_question_tokens=40, max_samples=32, default_new_tokens=24))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def question(learnt_problems):
    return learnt_problems[1].question


def lines_of(response):
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_page_and_its_files_come_from_here_alone(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    for file in sorted(routes.PAGE.iterdir()):
        answer = client.get(f"/inspect/page/{file.name}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.text == file.read_text()
        assert "https://" not in answer.text
        assert "innerHTML" not in answer.text
    assert client.get("/inspect/page/../routes.py").status_code == 404
    assert client.get("/inspect/page/%2e%2e/routes.py").status_code == 404


def test_setup_lists_models_and_limits(client):
    setup = client.get("/inspect/setup").json()
    assert [(facts["name"], facts["method"]) for facts in setup["models"]] == [
        ("learnt", "atp_latent"),
        ("cot", "cot"),
        ("other", "atp_latent"),
    ]
    assert setup["limits"] == {"max_question_tokens": 40, "max_samples": 32, "max_edits": 64}
    assert setup["examples"] == []


def test_asking_streams_steps_then_tokens_then_the_whole(client, learnt_problems, question):
    answer = client.post("/inspect/ask", json={"model": "learnt", "question": question, "reference": "0"})
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    events = lines_of(answer)
    kinds = [event["event"] for event in events]
    assert kinds[:3] == ["step"] * 3
    assert kinds[-1] == "done"
    assert (events[-1]["answer"], events[-1]["correct"]) == (learnt_problems[1].answer, False)


def test_sampling_and_intervening_answer_in_one_request(client, learnt, question):
    body = {"model": "learnt", "question": question}
    sampling = Sampling(1.0, 3.0, 24)
    settings = {"count": 8, "seed": 5, "latent_temperature": 3}
    tallied = client.post("/inspect/sample", json={**body, **settings}).json()
    (solutions,) = solve(learnt.model, [question], sampling, seed=5, num_generations=8)
    bare = InspectedModel("learnt", learnt.model)
    assert tallied == json.loads(json.dumps(tally(bare, question, solutions)))
    edits = [{"kind": "zero", "steps": [1]}, {"kind": "splice", "question": question}]
    result = client.post("/inspect/intervene", json={**body, "edits": edits}).json()
    assert [row["label"] for row in result["outcomes"]] == [
        "step 1 set to zero",
        "all steps from the other question",
    ]
    assert result["outcomes"][1]["answer"] == result["intact"]["answer"]


@pytest.mark.parametrize(
    ("path", "change", "status", "message"),
    [
        ("ask", {"question": "  "}, 400, "the question is empty"),
        ("ask", {"question": "the " * 60}, 400, "too long: 62 tokens"),
        ("ask", {"question": "zebra ?"}, 400, "has no word for 'zebra'"),
        ("ask", {"model": "gpt"}, 404, "there is no model 'gpt'; there are learnt, cot, other"),
        ("ask", {"surprise": 1}, 400, "surprise: Extra inputs are not permitted"),
        ("sample", {"count": 33}, 400, "33 samples are too many: this server draws 32"),
        ("sample", {"count": 0}, 400, "count: Input should be greater than or equal to 1"),
        ("sample", {"temperature": 0, "latent_temperature": 0}, 400, "all samples are the same"),
        ("sample", {"temperature": 1e-30}, 400, "temperature: Value error, below 0.001 logits overflow"),
        ("intervene", {"edits": []}, 400, "edits: List should have at least 1 item"),
        ("intervene", {"edits": [{"kind": "zero", "steps": [9]}]}, 400, "there is no step 9"),
        ("intervene", {"edits": [{"kind": "melt"}]}, 400, "edits.0.kind"),
        ("intervene", {"edits": [{"kind": "splice", "question": "zebra"}]}, 400, "has no word for 'zebra'"),
        ("intervene", {"edits": [{"kind": "move", "model": "cot"}]}, 400, "cot has no latents to move"),
        ("intervene", {"edits": [{"kind": "move"}]}, 400, "move needs another model"),
        ("intervene", {"model": "cot", "edits": [{"kind": "zero", "steps": [1]}]}, 400, "has no latents"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(client, question, path, change, status, message):
    body = {"model": "learnt", "question": question, **change}
    answer = client.post(f"/inspect/{path}", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_latents_are_moved_towards_those_of_another_model(client, question):
    edits = [{"kind": "move", "model": "other", "share": share} for share in (0, 1)]
    body = {"model": "learnt", "question": question, "edits": edits}
    unmoved, moved = client.post("/inspect/intervene", json=body).json()["outcomes"]
    assert unmoved["label"] == "all steps moved 0% towards other"
    result = client.post("/inspect/intervene", json={**body, "edits": edits[:1]}).json()
    assert unmoved["completion"] == result["intact"]["completion"]
    assert moved["plan"] != unmoved["plan"]


def test_text_that_is_no_json_is_refused(client):
    answer = client.post("/inspect/ask", content="{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "Invalid JSON" in answer.json()["error"]["message"]
    large = client.post(
        "/inspect/ask", content=b" " * (2**20 + 1), headers={"Content-Type": "application/json"}
    )
    assert large.status_code == 413


def test_fault_while_streaming_is_the_last_line(client, question, monkeypatch):
    def broken(*args, **kwargs):
        yield {"event": "step"}
        raise RuntimeError("secret detail")

    monkeypatch.setattr(desk, "ask", broken)
    events = lines_of(client.post("/inspect/ask", json={"model": "learnt", "question": question}))
    assert [event["event"] for event in events] == ["step", "error"]
    assert events[-1]["status"] == 500
    assert "secret" not in events[-1]["message"]


def test_with_an_api_key_the_page_is_open_and_the_models_are_not(models, question):
    with TestClient(
        create_app(models, ServeSettings(api_key="sesame")), base_url="http://localhost"
    ) as locked:
        assert locked.get("/").status_code == 200
        assert locked.get("/inspect/page/page.js").status_code == 200
        assert locked.get("/inspect/setup").status_code == 401
        body = {"model": "learnt", "question": question}
        assert locked.post("/inspect/ask", json=body).status_code == 401
        assert locked.get("/inspect/page/../setup").status_code in (401, 404)
        key = {"Authorization": "Bearer sesame"}
        assert locked.post("/inspect/ask", json=body, headers=key).status_code == 200


def test_slow_question_ends_with_words(models, question):
    with TestClient(
        create_app(models, ServeSettings(request_timeout=1e-6)), base_url="http://localhost"
    ) as slow:
        body = {"model": "learnt", "question": question}
        (event,) = lines_of(slow.post("/inspect/ask", json=body))
        assert (event["status"], event["event"]) == (504, "error")
        answer = slow.post("/inspect/sample", json=body)
        assert answer.status_code == 504
        assert "--request_timeout" in answer.json()["error"]["message"]


def test_more_actions_than_may_be_under_way_are_refused(client, question, monkeypatch):
    monkeypatch.setattr(desk, "MAX_AT_ONCE", 1)
    body = {"model": "learnt", "question": question}
    for _ in range(3):  # One after the other: each gives its place back.
        assert client.post("/inspect/sample", json={**body, "temperature": 9}).status_code == 400
        assert lines_of(client.post("/inspect/ask", json=body))[-1]["event"] == "done"
    monkeypatch.setattr(desk, "MAX_AT_ONCE", 0)
    answer = client.post("/inspect/ask", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_many_at_once_each_get_their_own_answer(running_server, models, learnt_problems):
    kinds = {"ask": {}, "sample": {"count": 4, "temperature": 0.01, "latent_temperature": 0}}
    kinds["intervene"] = {"edits": [{"kind": "keep", "steps": [0]}]}
    wanted = [(kind, problem) for kind in kinds for problem in learnt_problems] * 3

    def answer(url, kind, problem):
        body = {"model": "learnt", "question": problem.question, **kinds[kind]}
        request = urllib.request.Request(
            f"{url}/inspect/{kind}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            told = json.loads(response.read().splitlines()[-1])
        return (told.get("intact") or told.get("answers", [told])[0])["answer"]

    with running_server(models) as url, ThreadPoolExecutor(18) as pool:
        answers = list(pool.map(lambda each: answer(url, *each), wanted))
    assert answers == [problem.answer for _, problem in wanted]
