"""Jobs: commands that train and evaluate, each job in a process of its own, some of them side by side.

A job starts when those that it needs are done. What it has to do is determined when it starts, so that it can
depend on their results, and so that what has been done already is not done again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from latentplan.common.run_files import last_step, trained_model

Commands = list[list[str]]
MOST_BARS = 10


@dataclass
class Job:
    """A run: train, then evaluate.

    Attributes:
        name: by which other jobs need it.
        title: what the user sees.
        run: its run directory.
        log: where its output goes.
        pending: the command lines that are left to carry out, determined when the job starts.
        needs: the jobs that come first.
        total_steps: optimisation steps of its training, for the progress bar; None where not known.
        threads: CPU threads that it may use; None leaves it to PyTorch.
    """

    name: str
    title: str
    run: Path
    log: Path
    pending: Callable[[], Commands]
    needs: Sequence[str] = ()
    total_steps: int | None = None
    threads: int | None = 1
    process: subprocess.Popen | None = None
    status: str = "waits"


class JobFailedError(RuntimeError):
    """A process ended with an error; the message holds the end of its log."""


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    console: Console,
    *,
    on_done: Callable[[Job], None] = lambda job: None,
    on_turn: Callable[[], None] = lambda: None,
) -> None:
    """Carries out all jobs, at most `workers` at a time, earlier ones first, and shows how far each is.

    Ctrl-C and SIGTERM end the processes too. A job that fails ends all others.

    Args:
        on_done: called with each job that has ended well.
        on_turn: called several times a second.

    Raises:
        JobFailedError: a job failed.
    """
    with _interruptible():
        try:
            _take_turns(jobs, workers, console, on_done, on_turn)
        finally:
            _stop(jobs)


def _take_turns(
    jobs: Sequence[Job],
    workers: int,
    console: Console,
    on_done: Callable[[Job], None],
    on_turn: Callable[[], None],
) -> None:
    by_name = {job.name: job for job in jobs}
    with _Board(jobs, console) as board:
        while True:
            for job in jobs:
                if job.process is not None:
                    _look_after(job, on_done)
                busy = sum(other.process is not None for other in jobs)
                ready = job.status == "waits" and all(by_name[name].status == "done" for name in job.needs)
                if ready and busy < workers:
                    _start(job)
            board.show()
            on_turn()
            if all(job.status == "done" for job in jobs):
                return
            time.sleep(0.2)


class _Board:
    """How far the jobs are: a bar for each, or where they are many for those that run; lines in a log."""

    def __init__(self, jobs: Sequence[Job], console: Console):
        self.jobs, self.console = jobs, console
        columns = (TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[status]}"))
        self.progress = Progress(
            *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
        )
        self.crowded = len(jobs) > MOST_BARS
        self.bars = {
            job.name: self.progress.add_task(job.title, total=job.total_steps, status="waits", start=False)
            for job in jobs
        }
        self.shown = dict.fromkeys(self.bars, "waits")

    def __enter__(self) -> _Board:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def show(self) -> None:
        """Brings bars and lines up to date."""
        for job in self.jobs:
            bar = self.bars[job.name]
            if job.status != self.shown[job.name]:
                if self.shown[job.name] == "waits":
                    self.progress.start_task(bar)
                self.shown[job.name] = job.status
                if not self.console.is_terminal:
                    self.console.print(Text(f"{datetime.now():%H:%M:%S} {job.title}: {job.status}"))
            reached = job.total_steps if job.status == "done" else last_step(job.run)
            visible = not self.crowded or job.process is not None
            self.progress.update(bar, completed=reached, status=job.status, visible=visible)


def _start(job: Job) -> None:
    """Starts the process of a job; one without commands is done."""
    commands = job.pending()
    if not commands:
        job.status = "done"
        return
    threads = {} if job.threads is None else {"OMP_NUM_THREADS": str(job.threads)}
    environment = {**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false"}
    trains = any(command[0] != "evaluate" for command in commands)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("w" if trains else "a", encoding="utf-8") as log:
        job.process = subprocess.Popen(
            [sys.executable, "-m", "latentplan.cli.subprocess_entry", json.dumps(commands)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    job.status = "trains"


def _look_after(job: Job, on_done: Callable[[Job], None]) -> None:
    """Notes where a job has got to, and whether it has ended."""
    assert job.process is not None
    code = job.process.poll()
    if code is None:
        job.status = "evaluates" if trained_model(job.run).is_file() else "trains"
        return
    job.process = None
    if code != 0:
        raise JobFailedError(f"{job.title} ended with exit status {code}:\n{_tail(job.log)}")
    on_done(job)
    job.status = "done"


@contextmanager
def _interruptible() -> Iterator[None]:
    """Makes SIGTERM interrupt like Ctrl-C, so that what was started is also stopped."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _stop(jobs: Sequence[Job]) -> None:
    """Ends the processes that still run, and waits for them."""
    running = [job.process for job in jobs if job.process is not None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log: Path, lines: int = 15) -> str:
    return (
        "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        + f"\n(whole log: {log})"
    )
