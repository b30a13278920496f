"""The page in a real Chromium: ask, sample, intervene, errors, the width of a phone."""

import json
import shutil

import pytest

from latentplan.problems.problem import Problem

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FEW = {"max_new_tokens": 12, "default_new_tokens": 12}  # Random models do not end by themselves.
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, learnt_problems):
    """A run whose evaluation asked the two questions."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "evaluation").mkdir()
    rows = [
        {"index": place, "question": each.question, "reference": each.answer, "steps": list(each.steps)}
        for place, each in enumerate(learnt_problems)
    ]
    (folder / "evaluation/clock.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "run.json").write_text(json.dumps({"kind": "sft", "data": {"modulus": 11}}))
    return folder


@pytest.fixture(scope="module")
def models(learnt, make_inspected):
    return {
        "learnt": learnt.model,
        "coconut": make_inspected("coconut").model,
        "cot": make_inspected("cot").model,
    }


@pytest.fixture(scope="module")
def url(running_server, models, run_folder):
    with running_server(models, folders={"learnt": run_folder}, max_question_tokens=64, **FEW) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    """The page, opened; at the end nothing may have been complained about."""
    page = browser.new_page()
    page.set_default_timeout(20_000)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(url) or complaints.append(request.url))
    page.goto(url)
    page.wait_for_selector("input[name=model]", state="attached")
    yield page
    page.close()
    assert complaints == []


def rest(page) -> None:
    """Waits until nothing is under way."""
    page.wait_for_selector("#status:empty", state="attached")


def ask(page, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")
    page.wait_for_selector("#thought-columns .column:last-child .scores:not(:empty)")
    rest(page)


def column(page, section: str, name: str):
    return page.locator(f"#{section}-columns .column", has=page.locator("h3", has_text=name))


def test_asking_shows_cards_links_and_the_answer(page, learnt_problems: tuple[Problem, Problem]):
    _, long = learnt_problems
    ask(page, long.question)
    learnt = column(page, "thought", "learnt")
    assert tuple(learnt.locator(".card .reading code").all_inner_texts()) == long.steps
    assert learnt.locator(".outcome .answer").inner_text() == long.answer
    assert "✓ right" in learnt.locator(".outcome").inner_text()
    assert learnt.locator(".card").nth(0).locator(".good").all_inner_texts() == [
        "✓ true",
        "✓ grounded",
        "✓ used",
    ]
    assert learnt.locator(".card").nth(0).locator(".bar").get_attribute("aria-label").startswith("stop prob")
    assert learnt.locator("path.arc:not(.head)").count() >= 3
    assert learnt.locator("path.arc.to-answer:not(.head)").count() >= 1
    coconut = column(page, "thought", "coconut")
    assert coconut.locator(".card").count() == 3
    assert "No step decoder" in coconut.inner_text()
    assert page.locator("#thought-columns .column").count() == 3


def test_question_is_picked_from_the_run_s_own(page, learnt_problems):
    short, _ = learnt_problems
    page.select_option("#examples", label=short.question)
    assert page.input_value("#question") == short.question
    page.uncheck("input[value=coconut]")
    page.uncheck("input[value=cot]")
    page.click("button.main")
    page.wait_for_selector("#thought-columns .scores:not(:empty)")
    assert page.locator("#thought-columns .column").count() == 1
    assert f"The right answer is {short.answer}." in page.inner_text("#asked")
    assert page.locator(".stop .bar").count() == 1


def test_samples_are_voted_on(page, learnt_problems):
    ask(page, learnt_problems[1].question)
    page.fill("#count", "24")
    page.fill("#latent-temperature", "4")
    page.press("#count", "Enter")
    page.wait_for_selector("#samples-columns .plan")
    learnt = column(page, "samples", "learnt")
    votes = [int(text.split(" of ")[0]) for text in learnt.locator(".answers .votes").all_inner_texts()]
    assert sum(votes) == 24
    assert learnt.locator(".plan").count() > 1
    assert "cannot be read as plans" in column(page, "samples", "coconut").inner_text()


def test_edits_show_what_becomes_of_the_answer(page, learnt_problems):
    short, long = learnt_problems
    ask(page, long.question)
    page.click("button[value=all]")
    learnt = column(page, "whatif", "learnt")
    learnt.locator(".every").wait_for()
    assert learnt.locator(".every tbody tr").count() == 6
    assert learnt.locator(".every tbody td").count() == 18
    assert "of 17 edits" in learnt.locator(".every caption").inner_text()
    assert page.locator("#whatif-columns .column").count() == 2
    page.fill("#other", short.question)
    page.click("button[value=splice-all]")
    learnt.get_by_text("all steps from the other question").wait_for()
    first = learnt.locator(".outcomes tbody tr").nth(1)
    assert short.steps[0] in first.locator(".chain-text").inner_text()
    page.check("input[name=step][value='2']")
    page.click("button[value=swap]")
    learnt.get_by_text("steps 1 and 2 exchanged").wait_for()


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "The question is empty."),
        ("the zebra shows 2", "The model's vocabulary has no word for 'zebra'"),
        ("the " * 100, "The question is too long"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(page, question, message):
    page.fill("#question", question)
    page.click("button.main")
    page.locator("#error").wait_for()
    assert message in page.inner_text("#error")
    assert not page.is_visible("#thought")


def test_edit_that_does_not_fit_is_said(page, learnt_problems):
    ask(page, learnt_problems[1].question)
    page.click("button[value=swap]")
    error = column(page, "whatif", "learnt").locator(".error")
    error.wait_for()
    assert "Swap needs two different steps" in error.inner_text()
    page.uncheck("input[name=step][value='1']")
    page.click("button[value=zero]")
    assert page.inner_text("#edit-error") == "Choose a step first."


def test_one_model_that_fails_leaves_the_others_standing(page, learnt_problems):
    refusal = json.dumps({"error": {"message": "the queue is full"}})
    page.route(
        "**/inspect/ask",
        lambda route: (
            route.fulfill(status=503, body=refusal) if "cot" in route.request.post_data else route.fallback()
        ),
    )
    page.uncheck("input[value=coconut]")
    page.fill("#question", learnt_problems[0].question)
    page.press("#question", "Enter")
    error = column(page, "thought", "cot").locator(".error")
    error.wait_for()
    rest(page)
    assert error.inner_text() == "The queue is full"
    assert column(page, "thought", "learnt").locator(".answer").inner_text() == learnt_problems[0].answer
    assert not page.is_visible("#error")


def test_text_of_a_model_or_a_question_is_never_html(page, learnt_problems):
    attack = "<img src=x onerror=alert(1)>"
    page.fill("#question", attack)
    page.click("button.main")
    page.locator("#error").wait_for()
    assert "has no word for '<', 'img', 'src'" in page.inner_text("#error")
    piece = {"text": attack, "probability": 0.5, "other": attack, "other_probability": 0.4}
    step = {"event": "step", "number": 1, "latents": [{"norm": 1.0, "sigma": None}], "stop": None}
    step["decoded"] = {"text": attack, "probability": 0.5, "pieces": [piece]}
    reading = {"text": attack, "true": None, "grounded": None, "used": None, "notes": [attack]}
    done = {"event": "done", "completion": attack, "answer": attack, "correct": None, "written": None}
    done |= {
        "plan": {
            "steps": [reading],
            "links": [{"start": 0, "end": None, "value": attack, "strength": 1}],
            "scores": {},
        }
    }
    done |= {"answer_probability": 1, "num_latents": 1, "num_tokens": 2, "finished": True}
    lines = "".join(json.dumps(event) + "\n" for event in (step, {"event": "token", "text": attack}, done))
    page.route("**/inspect/ask", lambda route: route.fulfill(body=lines))
    ask(page, learnt_problems[0].question)
    assert page.locator(".outcome .answer").first.inner_text() == attack
    assert attack in page.locator(".card").first.inner_text()
    assert page.locator("img").count() == 0


def test_server_that_is_gone_is_said(browser, running_server, models, learnt_problems):
    page = browser.new_page()
    with running_server(models, **FEW) as url:
        page.goto(url)
        page.wait_for_selector("input[name=model]", state="attached")
    page.fill("#question", learnt_problems[0].question)
    page.click("button.main")
    page.locator("#error").wait_for()
    assert page.inner_text("#error") == "The server does not answer. Is `latentplan serve` still running?"
    page.close()


def test_api_key_is_asked_for(browser, running_server, models, run_folder, learnt_problems):
    page = browser.new_page()
    with running_server(models, {"learnt": run_folder}, api_key="sesame", **FEW) as url:
        page.goto(url)
        page.locator("#key").wait_for()
        page.fill("#question", learnt_problems[0].question)
        page.fill("#key", "sesame")
        page.click("button.main")
        page.wait_for_selector("#thought-columns .column:last-child .scores:not(:empty)")
        rest(page)
        assert not page.is_visible("#key")
        assert not page.is_visible("#error")
        assert page.inner_text("#asked").startswith(learnt_problems[0].question)
        assert column(page, "thought", "learnt").locator(".answer").inner_text() == learnt_problems[0].answer
        page.close()


def test_fits_a_phone_and_works_by_keyboard(page, learnt_problems):
    page.set_viewport_size(PHONE)
    page.focus("#question")
    page.fill("#question", learnt_problems[1].question)
    page.keyboard.press("Enter")
    page.wait_for_selector("#thought-columns .column:last-child .scores:not(:empty)")
    page.focus("#sample button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#samples-columns .plan")
    page.focus("button[value=all]")
    page.keyboard.press("Space")
    page.locator(".every").first.wait_for()
    page.focus("button[value=splice-all]")
    page.keyboard.press("Enter")
    page.locator(".outcomes tr").nth(3).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("document.activeElement.value") == "splice-all"
