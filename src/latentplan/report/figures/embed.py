"""Pictures in the report: the SVG files that `latentplan visualize` left in a run's `pictures/` folder.

They are written into the page as data, so that it stays one file; what is too large for that is named.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentplan.common.secrets import masked_command
from latentplan.report.run_reader import Run

FOLDER, FILE = "pictures", "pictures.json"
MAX_BYTES = 500_000
"""Of one picture in a report."""
MAX_TOTAL = 3_000_000
"""Of all pictures in a report."""


@dataclass(frozen=True)
class Embedded:
    """A picture of a report.

    Attributes:
        caption: what it shows.
        source: the picture, as a data URI.
    """

    caption: str
    source: str


@dataclass(frozen=True)
class PictureGroup:
    """The pictures in one run's folder.

    Attributes:
        run: whose folder.
        about: on which problems, and what made them.
        command: that draws them again; empty if it is not known.
        pictures: in the order in which they were drawn.
        left_out: what is not shown, with the reason.
    """

    run: Run
    about: str
    command: str
    pictures: Sequence[Embedded]
    left_out: Sequence[str]


def picture_groups(runs: Sequence[Run]) -> list[PictureGroup]:
    """Returns the pictures of all runs that have some, up to 3 MB in all; what cannot be read becomes
    a note.
    """
    groups, room = [], MAX_TOTAL
    for run in runs:
        listed = _listed(run)
        if listed is None:
            continue
        pictures: list[Embedded] = []
        left_out = [f"{gone.get('name')}: {gone.get('reason')}" for gone in _mappings(listed, "left_out")]
        for entry in _mappings(listed, "pictures"):
            svg = _svg(run, entry)
            if svg is None:
                continue
            if len(svg) > min(MAX_BYTES, room):
                left_out.append(f"{entry['svg']}: too large for this page, see {FOLDER}/ of the run")
                continue
            room -= len(svg)
            source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
            pictures.append(Embedded(str(entry.get("caption", "")), source))
        if pictures:
            command = masked_command(listed.get("command") or "")
            groups.append(PictureGroup(run, _about(listed), command, pictures, left_out))
    return groups


def _listed(run: Run) -> dict[str, Any] | None:
    file = run.entry.path / FOLDER / FILE
    if not file.is_file():
        return None
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        run.notes.append(f"{FOLDER}/{FILE} of {run.title} cannot be read: {str(error).splitlines()[0]}")
        return None
    return row if isinstance(row, dict) else None


def _mappings(listed: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = listed.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _svg(run: Run, entry: dict[str, Any]) -> bytes | None:
    # Only a file right in the folder, whatever the list says.
    file = run.entry.path / FOLDER / str(entry.get("svg")).rpartition("/")[2]
    try:
        return file.read_bytes()
    except OSError:
        run.notes.append(f"{FOLDER}/{file.name} of {run.title} cannot be read")
        return None


def _about(listed: dict[str, Any]) -> str:
    models = ", ".join(map(str, listed.get("models") or ()))
    return f"{models} on {listed.get('num_problems', 'some')} problems of {listed.get('benchmark', 'a set')}"
