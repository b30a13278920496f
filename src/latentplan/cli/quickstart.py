"""`latentplan quickstart`: the main job, with a backbone, ATP-Latent, its baselines and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from latentplan.cli.load_or_exit import fail
from latentplan.experiments.jobs import JobFailedError
from latentplan.experiments.quickstart_runs import (
    QuickstartRecord,
    pending,
    plan_member,
    quickstart_members,
    quickstart_table,
    run_members,
)
from latentplan.report.page import build_report
from latentplan.report.run_reader import ReportEntry
from latentplan.report.summary import SUMMARY, read_summary
from latentplan.training.run_directory import command_line


def quickstart(
    output: Annotated[Path, typer.Option("--output", help="Folder of the runs and of the report.")] = Path(
        "runs/quickstart"
    ),
    num_problems: Annotated[int, typer.Option("--num_problems", help="Held-out problems.", min=1)] = 1000,
    workers: Annotated[int, typer.Option("--workers", help="Jobs side by side.", min=1)] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of every run; the data stay the same.")] = 42,
    scale: Annotated[
        float,
        typer.Option(
            "--scale", help="Share of the optimisation steps (and training problems), for a quick look."
        ),
    ] = 1.0,
) -> None:
    """Train a backbone, ATP-Latent (SFT, then RL) and its baselines on a laptop, and write the report."""
    console = Console(highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    members = quickstart_members()
    for member in members:
        plan_member(member, output, num_problems, seed, scale)
    record = QuickstartRecord(output / "quickstart.json")
    if any(pending(member, output, num_problems, record) for member in members):
        try:
            with record.counting():
                run_members(members, output, num_problems, workers, console, record)
        except JobFailedError as error:
            fail(error)
    page = build_report(
        output,
        [ReportEntry(member.name, member.title, output / member.name) for member in members],
        seconds=record.seconds(),
        title="latentplan quickstart",
        command=command_line(),
    )
    console.print(quickstart_table(read_summary(output), members))
    console.print(Text(f"{record.seconds():.0f} s of training and evaluation"))
    console.print(Text(f"report:  {page}\nsummary: {output / SUMMARY}"), soft_wrap=True)
