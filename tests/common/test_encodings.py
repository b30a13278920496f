"""Text files are UTF-8 whatever the locale, and JSON lines end with a line feed alone."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import latentplan
from latentplan.common.run_files import read_rows

SOURCE = Path(latentplan.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
_NOT_OF_FILES = {"Image", "os", "webbrowser", "zipfile", "tarfile", "socket"}


def without_encoding(tree):
    """Calls that read or write text in the encoding of the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        given = {keyword.arg for keyword in node.keywords}
        literals = [ast.unparse(argument) for argument in node.args] + [
            ast.unparse(k.value) for k in node.keywords
        ]
        binary = any("b" in text for text in literals if text.strip("'\"") in ("rb", "wb", "ab", "r+b", "xb"))
        text_mode = name in ("read_text", "write_text") or (name == "open" and owner not in _NOT_OF_FILES)
        if (
            text_mode
            and not binary
            and "encoding" not in given
            and not (name != "open" and len(node.args) > 1)
        ):
            yield node


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_every_text_file_has_an_encoding(file):
    found = [ast.unparse(node) for node in without_encoding(ast.parse(file.read_text(encoding="utf-8")))]
    # A function called `read_text` that reads no file.
    assert [text for text in found if "state" not in text] == []


def test_the_check_finds_what_it_is_for():
    text = "a.read_text()\nopen(a)\nb.open('a')\nopen(a, 'rb')\nb.open(encoding='utf-8')\nImage.open(c)"
    assert [ast.unparse(node) for node in without_encoding(ast.parse(text))] == [
        "a.read_text()",
        "open(a)",
        "b.open('a')",
    ]


def test_a_line_separator_in_a_text_ends_no_row(tmp_path):
    rows = [{"question": "a\u2028b\x85c\x0cd\u2029e"}, {"question": "f"}]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read_rows(file).rows == rows
    assert read_rows(file).broken == []
    file.write_text(file.read_text(encoding="utf-8") + '{"half', encoding="utf-8")
    assert (read_rows(file).rows, read_rows(file).broken) == (rows, [3])


def test_what_is_no_regular_file_is_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    assert read_rows(tmp_path / "metrics.jsonl") == ([], [])
