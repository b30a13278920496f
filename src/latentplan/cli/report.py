"""`latentplan report`: the page and the summary of one run, or of all runs below a directory.

latentplan report runs/quickstart
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from latentplan.report.page import build_report, find_entries
from latentplan.report.summary import read_summary


def report(
    run: Annotated[Path, typer.Argument(help="A run directory, or a directory of run directories.")],
) -> None:
    """Write report.html and summary.json from what the runs have measured so far."""
    console = Console(soft_wrap=True, highlight=False)
    entries = find_entries(run)
    if not entries:
        reason = f"{run}: there is no run here: no run.json in this directory or right below it"
        console.print(Text(reason, style="red"))
        raise typer.Exit(1)
    page = build_report(run, entries, seconds=_seconds(run), title=f"latentplan: {run.resolve().name}")
    console.print(Text(str(page)))


def _seconds(run: Path) -> float | None:
    """Reads the wall time from an earlier summary: that of the whole job is known only when it ends."""
    return read_summary(run).get("seconds")
