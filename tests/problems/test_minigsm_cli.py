"""`latentplan data make minigsm`: files appear whole, bad dials are named."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from latentplan.cli.data import minigsm
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.problem import Problem

app = typer.Typer()
app.command()(minigsm)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def read(text: str) -> list[Problem]:
    return [Problem.from_json(json.loads(line)) for line in text.splitlines()]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_holds_what_the_library_generates(tmp_path, preset):
    output = tmp_path / "data" / "validation.jsonl"
    result = run("--preset", preset, "--split", "validation", "--count", 20, "--seed", 3, "--output", output)
    assert result.exit_code == 0, result.output
    expected = list(generate(PRESETS[preset], split="validation", count=20, seed=3))
    assert read(output.read_text()) == expected
    assert [path.name for path in output.parent.iterdir()] == ["validation.jsonl"]


def test_dials_override_the_preset():
    result = run(
        "--preset", "clock", "--count", 30, "--modulus", 7, "--multipliers", "2,5", "--max_steps", 2,
        "--step_weights", "0,1", "--output", "-",
    )  # fmt: skip
    problems = read(result.stdout)
    assert len(problems) == 30
    assert all(problem.modulus == 7 and len(problem.steps) == 2 for problem in problems)
    result = run("--no_percentages", "--families", "hike, fuel", "--count", 5, "--output", "-")
    assert all("litre" in problem.question or "km" in problem.question for problem in read(result.stdout))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "simple"], "preset is 'simple'"),
        (["--split", "dev"], "split is 'dev'"),
        (["--modulus", "1"], "modulus is 1"),
        (["--step_weights", "a,b"], "step_weights is 'a,b'"),
        (["--families", "none"], "families is ('none',)"),
    ],
)
def test_a_bad_value_is_named(arguments, message):
    result = run(*arguments, "--output", "-")
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_failed_run_leaves_an_earlier_file_alone(tmp_path):
    output = tmp_path / "test.jsonl"
    output.write_text("earlier\n")
    result = run(
        "--preset", "clock", "--split", "test", "--max_steps", 1, "--distinct", "problem", "--count", 11,
        "--output", output,
    )  # fmt: skip
    assert result.exit_code == 2
    assert "has only 10" in " ".join(result.output.replace("│", " ").split())
    assert output.read_text() == "earlier\n"
    assert list(tmp_path.iterdir()) == [output]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    result = run("--count", 1, "--output", tmp_path / "file" / "x.jsonl")
    assert result.exit_code == 2
    assert "cannot write" in result.output
