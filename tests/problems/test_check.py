from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from latentplan.cli.data import check
from latentplan.problems.check import Doubt, check_file
from latentplan.problems.problem import DataError, Problem

ROWS = [
    Problem("Ann has 2 pens and gets 3?", ("<<2+3=5>>",), "5"),
    Problem("ann has 2 pens, and gets 3", ("<<2+3=5>>",), "5"),
    Problem("Bob has 2?", ("<<2+2=5>>", "<<5*two>>", "<<5+1=6>>"), "7"),
    Problem("On a clock of 11?", ("<<8+5=2>>",), "2", modulus=11),
    Problem("Is Ann a zorp?", ("Ann is a wump.", "Every wump is 1 zorp."), "yes"),
    Problem("No steps?", (), "1"),
]

runner = CliRunner()
app = typer.Typer()
app.command()(check)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "[bold]mine.jsonl"
    path.write_text("".join(json.dumps(row.to_json()) + "\n" for row in ROWS))
    return path


def test_report(file):
    report = check_file(file, num_examples=2)
    assert report.ok
    assert (report.format, report.num_problems, report.num_duplicates) == ("latentplan", 6, 1)
    assert report.step_counts == {0: 1, 1: 3, 2: 1, 3: 1}
    assert report.examples == tuple(ROWS[:2])
    assert report.answer_kinds == {"number": 5, "yes_no": 1}
    assert report.doubts == (
        Doubt(3, "<<2+2=5>>", "false equation"),
        Doubt(3, "<<5*two>>", "unreadable equation"),
        Doubt(3, "<<5+1=6>>", "last result is not the answer"),
    )


def test_report_keeps_every_error(file):
    file.write_text(file.read_text() + '{"question": ""}\n{"question": "cut off')
    report = check_file(file)
    assert not report.ok
    assert report.num_problems == 6
    assert [(error.file, error.line) for error in report.errors] == [(str(file), 7), (str(file), 8)]


def test_a_benchmark_gives_format_and_chain(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"question": "Why?", "answer": True, "facts": ["So."], "decomposition": []}]))
    assert check_file(file, "strategyqa").examples[0].steps == ("So.",)
    assert not check_file(file, "gsm8k").ok
    with pytest.raises(DataError, match="no benchmark 'latent'"):
        check_file(file, "latent")


def test_command_on_a_good_file(file):
    result = runner.invoke(app, [str(file)])
    assert result.exit_code == 0
    assert "latentplan, 6 good rows, 0 broken" in result.output
    assert "### 5" in result.output
    assert f"warning: 1 × false equation: {file}:3 <<2+2=5>>" in result.output
    assert "warning: 1 questions were asked before" in result.output


def test_command_on_a_broken_file(file):
    file.write_text(file.read_text() + '{"question": "cut off')
    result = runner.invoke(app, [str(file), "--examples", "0"])
    assert result.exit_code == 1
    assert f"{file}:7: not valid JSON" in result.output
    assert "6 good rows, 1 broken" in result.output
    assert "### 5" not in result.output


@pytest.mark.parametrize("arguments", [["missing.jsonl"], ["--benchmark", "gsm9k", __file__]])
def test_command_on_wrong_arguments(arguments):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert "no such file" in result.output or "no benchmark 'gsm9k'" in result.output


def test_command_on_an_empty_file(tmp_path):
    file = tmp_path / "empty.jsonl"
    file.touch()
    result = runner.invoke(app, [str(file)])
    assert result.exit_code == 1
    assert f"{file}:1: the file holds no rows" in result.output
