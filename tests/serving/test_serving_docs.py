"""docs/serving.md keeps its word: its example runs, its limits and metrics are there."""

from __future__ import annotations

import re
from pathlib import Path

from latentplan.serving.settings import ServeSettings

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def rows_below(heading):
    """The first two cells of each row of the first table below a heading."""
    table = PAGE.split(heading, 1)[1].split("| --- |", 1)[1]
    rows = re.match(r"[^\n]*\n((?:\|[^\n]*\n)*)", table)[1].splitlines()
    return [[cell.strip() for cell in row.split("|")[1:3]] for row in rows]


def test_the_example_runs(open_server, tiny_models, questions, capsys):
    example = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[1]
    asked = re.search(r'"content": "([^"]*)"', example)[1]
    with open_server({"atp_latent_rl": tiny_models["atp"]}, default_new_tokens=4) as running:
        exec(example.replace("http://127.0.0.1:8000", running.url).replace(asked, questions[0]), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith(" latents")


def test_limits_have_these_defaults():
    stated = {name.strip("`"): value for name, value in rows_below("## Limits")}
    settings = vars(ServeSettings())
    assert len(stated) == 7
    assert {name: f"{settings[name]:g}" for name in stated} == stated


def test_metrics_are_there(server, questions):
    server.client.completions.create(model="atp", prompt=questions[0])
    shown = server.client._client.get(f"{server.url}/metrics").text
    names = [name for cell, _ in rows_below("## Metrics") for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) == 9
    for name in names:
        assert re.search(rf"^{name}(_bucket)?\{{", shown, flags=re.MULTILINE), name
