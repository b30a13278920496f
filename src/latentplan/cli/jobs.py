"""Jobs: commands that train and evaluate, each job in a process of its own, some of them side by side.

A job starts when those that it needs are done. What it has to do is asked when it starts, so that it can
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
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from latentplan.cli.opening import fail

Commands = list[list[str]]


@dataclass
class Job:
    """A run: train, then evaluate.

    Attributes:
        name: by which other jobs need it.
        title: what the user sees.
        run: its run directory.
        log: where its output goes.
        pending: the command lines that are left to carry out, asked when the job starts.
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


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    console: Console,
    *,
    on_done: Callable[[Job], None] = lambda job: None,
    on_turn: Callable[[], None] = lambda: None,
) -> None:
    """Carries out all jobs, at most `workers` at a time, earlier ones first, and shows how far each is.

    Ctrl-C and SIGTERM end the processes too. A job that fails ends the command and all others.

    Args:
        on_done: called with each job that has ended well.
        on_turn: called several times a second.
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
    done = {job.name: job for job in jobs}
    columns = (TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[status]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        bars = {
            job.name: progress.add_task(job.title, total=job.total_steps, status="waits", start=False)
            for job in jobs
        }
        while True:
            for job in jobs:
                if job.process is not None:
                    _look_after(job, on_done)
                busy = sum(other.process is not None for other in jobs)
                ready = job.status == "waits" and all(done[name].status == "done" for name in job.needs)
                if ready and busy < workers:
                    _start(job)
                    progress.start_task(bars[job.name])
                reached = job.total_steps if job.status == "done" else _step_reached(job.run)
                progress.update(bars[job.name], completed=reached, status=job.status)
            on_turn()
            if all(job.status == "done" for job in jobs):
                return
            time.sleep(0.2)


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
    with job.log.open("w" if trains else "a") as log:
        job.process = subprocess.Popen(
            [sys.executable, "-m", "latentplan.cli.child", json.dumps(commands)],
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
        job.status = "evaluates" if (job.run / "model" / "config.json").is_file() else "trains"
        return
    job.process = None
    if code != 0:
        fail(f"{job.title} ended with exit status {code}:\n{_tail(job.log)}")
    on_done(job)
    job.status = "done"


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM interrupts like Ctrl-C, so that what was started is also stopped."""

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


def _step_reached(run: Path) -> int:
    try:
        last = (run / "metrics.jsonl").read_text().splitlines()[-1]
        return int(json.loads(last)["step"])
    except (OSError, IndexError, ValueError, KeyError):
        return 0


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) + f"\n(whole log: {log})"
