"""`latentplan quickstart`: the main job, with a backbone, ATP-Latent, three baselines and a report.

The runs form a small graph; two of them train side by side, each on its own core, because passes over one
latent position are too small to share. Everything goes on where it was interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from latentplan.cli.opening import fail
from latentplan.cli.recipe import find_recipe
from latentplan.report.build import build_report
from latentplan.report.runs import ReportEntry

BENCHMARK = "minigsm:quickstart"


@dataclass
class Job:
    """One run of the quickstart: train by a recipe, then evaluate.

    Attributes:
        name: of the recipe and of the run directory.
        title: what the report calls it.
        command: `sft` or `grpo`.
        needs: the jobs whose models it starts from.
        threads: CPU threads that it may use.
    """

    name: str
    title: str
    command: str = "sft"
    needs: Sequence[str] = ()
    threads: int = 1
    process: subprocess.Popen | None = None
    stage: int = 0
    status: str = "waits"
    steps: list[list[str]] = field(default_factory=list)


def quickstart_jobs() -> list[Job]:
    """The jobs in the order of the table, the longest chain of them first where they compete for a core."""
    return [
        Job("cot", "CoT (written)", threads=2),
        Job("no_cot", "No-CoT", needs=["cot"]),
        Job("coconut", "Coconut", needs=["cot"]),
        Job("atp_latent_sft", "ATP-Latent, SFT", needs=["cot"]),
        Job("atp_latent_rl", "ATP-Latent, RL", command="grpo", needs=["atp_latent_sft"]),
    ]


START_ORDER = ("cot", "atp_latent_sft", "coconut", "no_cot", "atp_latent_rl")


def quickstart(
    output: Annotated[Path, typer.Option("--output", help="Folder of the runs and of the report.")] = Path(
        "runs/quickstart"
    ),
    num_problems: Annotated[int, typer.Option("--num_problems", help="Held-out problems.", min=1)] = 1000,
    workers: Annotated[int, typer.Option("--workers", help="Jobs side by side.", min=1)] = 2,
    seed: Annotated[int, typer.Option("--seed", help="Of every run; the data stay the same.")] = 42,
    scale: Annotated[
        float, typer.Option("--scale", help="Share of the optimisation steps to train, for a quick look.")
    ] = 1.0,
) -> None:
    """Train a backbone, ATP-Latent (SFT, then RL) and its baselines on a laptop, and write the report."""
    console = Console(highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    jobs = quickstart_jobs()
    clock = _Stopwatch(output / "quickstart.json")
    for job in jobs:
        job.steps = _commands(job, output, num_problems, seed, scale)
    try:
        _run_all(jobs, output, workers, console, clock)
    finally:
        for job in jobs:
            if job.process is not None and job.process.poll() is None:
                job.process.send_signal(signal.SIGTERM)
    entries = [ReportEntry(job.name, job.title, output / job.name) for job in jobs]
    page = build_report(
        output,
        entries,
        seconds=clock.seconds(),
        title="latentplan quickstart",
        command="latentplan quickstart",
    )
    console.print(_table(json.loads((output / "summary.json").read_text()), jobs))
    console.print(Text(f"{clock.seconds():.0f} s of training and evaluation"))
    console.print(Text(f"report:  {page}\nsummary: {output / 'summary.json'}"), soft_wrap=True)


def _commands(job: Job, output: Path, num_problems: int, seed: int, scale: float) -> list[list[str]]:
    """The command lines of a job: training, greedy and sampled evaluation."""
    run = output / job.name
    settings = yaml.safe_load(find_recipe(f"quickstart/{job.name}").read_text())
    train = [job.command, "--config", f"quickstart/{job.name}", "--output_dir", str(run)]
    train += ["--torch_threads", str(job.threads), "--seed", str(seed)]
    if job.needs:
        train += ["--model_name_or_path", str(output / job.needs[0])]
    if scale != 1.0:
        train += _scaled(settings, scale)
    evaluate = ["evaluate", str(run), "--benchmark", BENCHMARK, "--num_problems", str(num_problems)]
    evaluate += ["--max_new_tokens", "48", "--batch_size", "250", "--torch_threads", "1"]
    return [train, evaluate, [*evaluate, "--temperature", "1", "--no_latent_use"]]


def _scaled(settings: dict, scale: float) -> list[str]:
    """Flags that shorten a recipe."""
    if "max_steps" in settings:
        steps = max(1, round(settings["max_steps"] * scale))
        return ["--max_steps", str(steps), "--save_steps", str(steps), "--logging_steps", "1"]
    lengths = settings["curriculum_steps"]
    lengths = lengths if isinstance(lengths, list) else [lengths]
    scaled = [str(max(1, round(length * scale))) for length in lengths]
    return ["--curriculum_steps", *scaled, "--logging_steps", "1"]


def _run_all(jobs: Sequence[Job], output: Path, workers: int, console: Console, clock: _Stopwatch) -> None:
    """Starts each job when what it needs is done and a core is free, and shows how far each is."""
    by_name = {job.name: job for job in jobs}
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[status]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        bars = {
            job.name: progress.add_task(job.title, total=_total_steps(job), status="waits", start=False)
            for job in jobs
        }
        while any(job.status != "done" for job in jobs):
            for name in START_ORDER:
                _advance(by_name[name], by_name, output, workers, console, progress, bars[name])
            clock.tick()
            time.sleep(0.2)


def _advance(
    job: Job,
    jobs: dict[str, Job],
    output: Path,
    workers: int,
    console: Console,
    progress: Progress,
    bar: TaskID,
) -> None:
    """Moves one job on: starts it, shows its progress, or starts its next command."""
    if job.process is None:
        busy = sum(other.process is not None for other in jobs.values())
        ready = job.status == "waits" and all(jobs[name].status == "done" for name in job.needs)
        if ready and busy < workers:
            progress.start_task(bar)
            job.status = "trains"
            _start(job, output)
        return
    progress.update(bar, completed=_step_reached(output / job.name), status=job.status)
    code = job.process.poll()
    if code is None:
        return
    job.process = None
    if code != 0:
        fail(f"{job.title} ended with exit status {code}:\n{_tail(output / f'{job.name}.log')}")
    job.stage += 1
    if job.stage < len(job.steps):
        job.status = "evaluates"
        _start(job, output)
        return
    job.status = "done"
    progress.update(bar, completed=_total_steps(job), status="done")
    if not console.is_terminal:
        console.print(Text(f"{job.title}: done"))


def _start(job: Job, output: Path) -> None:
    log = (output / f"{job.name}.log").open("a" if job.stage else "w")
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"}
    job.process = subprocess.Popen(
        [sys.executable, "-m", "latentplan.cli.app", *job.steps[job.stage]],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    log.close()


def _total_steps(job: Job) -> int:
    """Optimisation steps of a job's training."""
    arguments = job.steps[0]
    for flag in ("--max_steps", "--curriculum_steps"):
        if flag in arguments:
            values = arguments[arguments.index(flag) + 1 :]
            end = next((i for i, value in enumerate(values) if value.startswith("--")), len(values))
            return sum(map(int, values[:end]))
    settings = yaml.safe_load(find_recipe(arguments[arguments.index("--config") + 1]).read_text())
    steps = settings.get("max_steps") or settings["curriculum_steps"]
    return sum(steps) if isinstance(steps, list) else steps


def _step_reached(run: Path) -> int:
    try:
        last = (run / "metrics.jsonl").read_text().splitlines()[-1]
        return int(json.loads(last)["step"])
    except (OSError, IndexError, ValueError, KeyError):
        return 0


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) + f"\n(whole log: {log})"


def _table(summary: dict, jobs: Sequence[Job]) -> Table:
    """The comparison, from summary.json."""
    table = Table(
        title=f"held-out {BENCHMARK}: accuracy with a 95% interval, greedy; and sampled at temperature 1"
    )
    table.add_column("method")
    for column in ("accuracy", "interval", "sampled", "tokens", "coherence", "seconds"):
        table.add_column(column, justify="right")
    for job in jobs:
        row = summary["methods"][job.name]
        low, high = row["interval"]
        table.add_row(
            job.title,
            f"{row['accuracy']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{row['accuracy_sampled']:.1%}",
            f"{row['tokens']:.1f}",
            "–" if row["coherence"] is None else f"{row['coherence']:.1%}",
            f"{row['seconds']:.0f}",
        )
    read = summary["reconstruction"]
    table.caption = f"the decoder reads {read:.1%} of ATP-Latent's held-out steps (SFT) exactly"
    return table


class _Stopwatch:
    """Wall seconds of the whole job, through interruptions."""

    def __init__(self, path: Path):
        self.path, self.started, self.saved = path, time.monotonic(), 0.0
        if path.is_file():
            self.saved = float(json.loads(path.read_text())["seconds"])

    def seconds(self) -> float:
        """Seconds so far."""
        return self.saved + time.monotonic() - self.started

    def tick(self) -> None:
        """Writes the seconds down."""
        self.path.write_text(json.dumps({"seconds": round(self.seconds(), 1)}))
