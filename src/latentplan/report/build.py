"""Writing the report: from run directories to `report.html` and `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from latentplan.common.files import write_atomically
from latentplan.report.formats import run_title
from latentplan.report.html import render
from latentplan.report.runs import ReportEntry, load_runs
from latentplan.report.summary import entry_under, summarise_runs, write_summary


def build_report(
    parent: Path,
    entries: Sequence[ReportEntry],
    *,
    seconds: float | None = None,
    title: str = "latentplan report",
    command: str = "",
) -> Path:
    """Writes `report.html` and `summary.json` into `parent` and returns the path of the page.

    Args:
        parent: where the two files go; relative paths of entries are looked up below it too.
        entries: the runs, in the order in which they are shown.
        seconds: wall time of the whole job, if it was measured.
        title: of the page.
        command: that makes all the runs again; empty if there is no single one.

    Raises:
        ValueError: there are no entries, or two have the same name.
    """
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a report needs entries with different names, got {names}")
    runs = load_runs([entry_under(parent, entry) for entry in entries])
    write_summary(parent, summarise_runs(runs, seconds))
    page = render(runs, seconds=seconds, title=title, command=command)
    return write_atomically(parent / "report.html", page)


def find_entries(directory: Path) -> list[ReportEntry]:
    """The directory itself if it is a run, else the runs right below it, in the order of their creation."""
    runs = [directory] if (directory / "run.json").exists() else []
    runs = runs or sorted((file.parent for file in directory.glob("*/run.json")), key=_created)
    return [ReportEntry(run.name, run_title(run.name), run) for run in (run.resolve() for run in runs)]


def _created(run: Path) -> tuple[str, str]:
    try:
        created = json.loads((run / "run.json").read_text(encoding="utf-8"))["created"]
    except (OSError, ValueError, KeyError, TypeError):
        created = ""
    return str(created), run.name
