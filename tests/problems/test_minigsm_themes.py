"""Story templates are data: what is read, in which order, and where an error says that a file is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from string import Formatter

import pytest

from latentplan.problems.minigsm import PRESETS, generate, theme_files
from latentplan.problems.minigsm.number_kinds import (
    FORMS,
    Above,
    Below,
    Divisor,
    Measure,
    Money,
    Multiple,
    Note,
    PartOf,
    Rate,
    Times,
    WholeNumber,
    read_number,
)
from latentplan.problems.minigsm.story_template import StoryTemplate, phrasings, shapes
from latentplan.problems.minigsm.theme_files import StoryTemplateError, read_theme, story_templates

ROOT = Path(__file__).parents[2]
THEMES = ROOT / "src/latentplan/problems/minigsm/themes"

THEME = """
pools:
  tools: saw, hammer, knife/knives
distractors:
  - "The shed is {z} years old."
stories:
  shed:
    cast: {A: people, x: tools}
    parts:
      - text: "{A} has {n} boxes of {each} {x.s}."
        numbers: {n: small 2 to 5, each: number 3 to 9}
        total: n * each
        question: "How many {x.s} is that?"
      - text:
          - "{A.He} lends {off} of them to a friend."
          - "{off} are broken."
        numbers: {off: at most 40% of total}
        let: {kept: total - off}
        total: kept
        question: "How many are left?"
        name: lent
      - text: "{A.He} puts them into {k} drawers."
        numbers: {k: divisor of kept from 2 to 9}
        total:
          - kept / k
        question: "How many are in each drawer?"
        needs: lent
  empty_shed:
    cast: {A: people}
    distractors: []
    parts:
      - {text: "{A} has {n} nails.", numbers: {n: number 2 to 9}, total: n + 12, question: "A dozen more?"}
"""


def test_a_theme_is_read_as_it_is_written():
    theme = read_theme(THEME, "tools.yaml")
    assert list(theme) == ["shed", "empty_shed"]
    shed, empty = theme.values()
    assert shed.distractors == ("The shed is {z} years old.",)
    assert empty.distractors == ()
    assert [(tool.one, tool.s) for tool in shed.cast["x"]] == [
        ("saw", "saws"),
        ("hammer", "hammers"),
        ("knife", "knives"),
    ]
    boxes, lent, drawers = shed.parts
    assert dict(boxes.numbers) == {"n": WholeNumber(2, 5, scales=False), "each": WholeNumber(3, 9)}
    assert boxes.text == "{A} has {n} boxes of {each} {x.s}."
    assert lent.text == ("{A.He} lends {off} of them to a friend.", "{off} are broken.")
    assert (lent.name, lent.let, lent.total) == ("lent", {"kept": "total - off"}, "kept")
    assert (drawers.needs, drawers.total, drawers.unless, drawers.required) == (
        "lent",
        ("kept / k",),
        (),
        False,
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("number 2 to 9", WholeNumber(2, 9)),
        ("small  2 to 9 ", WholeNumber(2, 9, scales=False)),
        ("multiple of 5 from 10 to 30", Multiple(5, 2, 6)),
        ("below total", Below("total", 70)),
        ("at most 30% of total", Below("total", 30)),
        ("above a by 2 to 9", Above("a", 2, 9)),
        ("divisor of total from 3 to 12", Divisor("total", 3, 12)),
        ("money 2 to 9", Money(2, 9)),
        ("measure 2 to 9", Measure(2, 9)),
        ("note above total", Note("total")),
        ("rate of total among 5 10 25", Rate("total", (5, 10, 25))),
        ("times 2 to 3", Times(2, 3)),
        ("part of total", PartOf("total")),
    ],
)
def test_a_number_is_read_from_its_form(text, kind):
    assert read_number(text) == kind


def test_every_form_of_a_number_is_used_by_a_story_and_is_in_the_documents():
    page = (ROOT / "docs/data.md").read_text()
    written = "\n".join(file.read_text() for file in THEMES.glob("*.yaml"))
    for form in FORMS:
        assert re.search(r"\w+".join(map(re.escape, re.split(r"\{\w+\}", form))), written), form
        assert re.search(r"[\w ]+".join(map(re.escape, re.split(r"\{\w+\}", form))), page), form


TYPOS = [
    ("stories:", "storys:", "tools.yaml: 'storys' is no key; did you mean 'stories'?"),
    ("pools:", "people:", "tools.yaml: 'people' is no key; known are: distractors, pools, stories"),
    ("knife/knives", "knife,,", "tools.yaml, pools, tools: a word is missing between two commas"),
    ("  tools:", "  people:", "tools.yaml, pools, people: this pool is built in"),
    ("{z} years", "ten years", "tools.yaml, distractors: 'The shed is ten years old.' has no number"),
    ("x: tools", "x: tolls", "tools.yaml, story shed, cast: 'tolls' is no pool; did you mean 'tools'?"),
    ("x: tools", "total: tools", "tools.yaml, story shed, cast: 'total' has a meaning of its own"),
    ("x: tools", "x: tools, y: tools, u: tools, v: tools", "cast: pool 'tools' has fewer members than"),
    ("cast: {A: people, x", "caste: {A: people, x", "story shed: 'caste' is no key; did you mean 'cast'?"),
    ('question: "How many are left', 'ask: "How many are left', "story shed, part 2: 'ask' is no key"),
    (
        "small 2 to 5",
        "smal 2 to 5",
        "part 1, numbers, n: 'smal 2 to 5' is no kind of number; write one of: num",
    ),
    ("small 2 to 5", "small 5 to 2", "part 1, numbers, n: the range of 'small 5 to 2' is empty"),
    ("small 2 to 5", "times 2 to 9", "part 1, numbers, n: there are words for 2 to 5 times only"),
    ("small 2 to 5", "multiple of 5 from 2 to 20", "numbers, n: 2 and 20 are not both multiples of 5"),
    ("small 2 to 5", "below total", "part 1, numbers, n: 'total' is no quantity so far"),
    ("{n: small", "{x: small", "part 1, numbers, x: 'x' is a role of the cast"),
    ("{n: small", "{total: small", "part 1, numbers, total: a name is one word of letters"),
    ("divisor of kept", "divisor of keep", "numbers, k: 'keep' is no quantity so far; did you mean 'kept'?"),
    (
        "total: n * each",
        "total: n * eahc",
        "part 1, total: 'eahc' is no quantity so far; did you mean 'each'?",
    ),
    ("total: n * each", "total: n ** each", "part 1, total: not an expression of minigsm: n ** each"),
    ("total: n * each", "total: n *", "part 1, total: not an expression of minigsm: n *"),
    ("total: n * each", "total: __import__('os')", "part 1, total: not an expression of minigsm"),
    ("total: n * each", "total: n * each * 7", "part 1, total: 7 is none of the constants 2, 3, 4"),
    ("        total: n * each\n", "", "story shed, part 1: the first part has no 'total'"),
    ("kept: total - off", "kept: total - on", "part 2, let, kept: 'on' is no quantity so far"),
    ("{z} years", "{z} {n} years", "story shed, distractors: 'n' is no role or number so far"),
    ("distractors: []", "distractors: [nothing]", "story empty_shed, distractors: 'nothing' has no number"),
    (
        "          - kept / k",
        "          []",
        "story shed, part 3, total: it must be text, between quotes, or a list",
    ),
    (
        '"{A} has {n} nails."',
        "{A}",
        "part 1, text: it must be text, between quotes, or a list of texts, not {'A'",
    ),
    (
        "{x.s}.",
        "{x.s!r}.",
        "story shed, part 1, text: '{A} has {n} boxes of {each} {x.s!r}.' has a ':' or '!'",
    ),
    ("{x.s}.", "{y.s}.", "story shed, part 1, text: 'y' is no role or number so far"),
    ("{x.s}.", "{x.ss}.", "story shed, part 1, text: 'ss' is no form of x; did you mean 's'?"),
    ("{x.s}.", "{n.s}.", "story shed, part 1, text: 's' is no form of n"),
    ("{x.s}.", "{k}.", "story shed, part 1, text: 'k' is no role or number so far"),
    ("{x.s}.", "{x.s.", "story shed, part 1, text: expected '}' before end of string"),
    ("{A.He} puts", "{A.he_} puts", "story shed, part 3, text: 'he_' is no form of A; did you mean 'he'?"),
    (
        "needs: lent",
        "needs: lend",
        "part 3, needs: 'lend' is no name of an earlier part; did you mean 'lent'?",
    ),
    ("needs: lent", "required: yes", "story shed, part 3, required: it must be true or false, not 'yes'"),
    (
        "needs: lent",
        "needs:",
        "story shed, part 3, needs: it must be text, between quotes, or a list of texts, not ''",
    ),
    ("name: lent", "name: [lent]", "story shed, part 2, name: it must be text, not ['lent']"),
    ("name: lent", "name: lent\n        name: kept", "tools.yaml: line 22: 'name' is already given above"),
    ('text: "{A} has {n} b', 'test: "{A} has {n} b', "part 1: 'test' is no key; did you mean 'text'?"),
    ('text: "{A.He} puts them into {k} drawers."', "total: k", "tools.yaml: line"),
    ('"How many {x.s} is that?"', "{x.s} is what?", "tools.yaml: line 13 is not YAML: "),
    ('question: "A dozen more?"', "name: end", "story empty_shed: no part has a 'question'"),
    ("  empty_shed:", "  shed:", "tools.yaml: line 28: 'shed' is already given above"),
    (
        "numbers: {n: number 2",
        "numbers: {7n: number 2",
        "story empty_shed, part 1, numbers, 7n: a name is one",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "message"), TYPOS, ids=[wrong for _, wrong, _ in TYPOS])
def test_a_typo_is_one_error_that_names_file_story_and_key(right, wrong, message):
    assert right in THEME
    with pytest.raises(StoryTemplateError, match=re.escape(message)) as error:
        read_theme(THEME.replace(right, wrong, 1), "tools.yaml")
    assert str(error.value).startswith("minigsm: tools.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "stories: {}", "stories: {shed: }", "stories: {shed: {cast: {A: people}}}"]
)
def test_what_is_missing_is_an_error(text):
    with pytest.raises(StoryTemplateError, match=r"minigsm: tools\.yaml"):
        read_theme(text, "tools.yaml")


def test_a_story_that_two_files_have_is_refused(tmp_path, monkeypatch):
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / "themes").mkdir(exist_ok=True)
        (tmp_path / "themes" / name).write_text(THEME)
    monkeypatch.setattr(theme_files, "files", lambda package: tmp_path)
    with pytest.raises(
        StoryTemplateError, match=r"two\.yaml, story \w+: another file has a story of this name"
    ):
        story_templates.__wrapped__()


def test_the_order_is_that_of_the_files_and_templates_are_read_once():
    texts = [file.read_text().split("\nstories:\n")[1] for file in sorted(THEMES.glob("*.yaml"))]
    written = [name for text in texts for name in re.findall(r"^  (\w+):$", text, flags=re.MULTILINE)]
    assert list(story_templates()) == written
    assert story_templates() is story_templates()


def test_themes_are_read_only_when_a_story_is_needed():
    code = """
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.minigsm.theme_files import story_templates
list(generate(PRESETS["clock"], split="train", count=3, seed=0))
assert story_templates.cache_info().currsize == 0
list(generate(PRESETS["easy"], split="train", count=3, seed=0))
assert story_templates.cache_info().currsize == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("template", story_templates().values(), ids=list(story_templates()))
def test_every_selection_of_parts_knows_what_it_names(template: StoryTemplate):
    for shape in shapes(template, 8):
        words, quantities = set(template.cast), set()
        for part in shape.parts:
            for name, kind in part.numbers.items():
                assert getattr(kind, "quantity", None) in {None, *quantities}, part.text
                words.add(name)
                quantities.add(name)
            quantities |= {*part.let, "total"}
            asked = phrasings(part.question) if part is shape.parts[-1] else ()
            for _, name, _, _ in chain(*map(Formatter().parse, (*phrasings(part.text), *asked))):
                assert name is None or name.partition(".")[0] in words, part.text


def test_the_story_of_the_documents_makes_problems(monkeypatch):
    section = (ROOT / "docs/data.md").read_text().split("### Add a story")[1]
    text = re.search(r"```yaml\n(.*?)```", section, flags=re.DOTALL)[1]
    theme = read_theme(text, "docs.yaml")
    monkeypatch.setattr("latentplan.problems.minigsm.word_problems.story_templates", lambda: theme)
    for name in theme:
        config = replace(PRESETS["default"], families=(name,), min_steps=2, max_steps=3, distractors=1)
        problems = list(generate(config, split="train", count=20, seed=0))
        assert len(problems) == 20
        assert not any(re.search(r"[{}]", problem.question) for problem in problems)
