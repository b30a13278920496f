"""`latentplan quickstart`: the main job, with a backbone, ATP-Latent, three baselines and a report.

The runs form a small graph; two of them train side by side, each on its own core, because passes over one
latent position are too small to share. Everything goes on where it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from latentplan.cli.evaluate import file_stem
from latentplan.cli.opening import fail
from latentplan.cli.recipe import find_recipe
from latentplan.problems.files import write_atomically
from latentplan.report.build import build_report
from latentplan.report.formats import decimal, percent
from latentplan.report.runs import ReportEntry
from latentplan.rollout.sampling import Sampling
from latentplan.training.run_directory import command_line

BENCHMARK = "minigsm:quickstart"
MAX_NEW_TOKENS = 48
FEWEST_PROBLEMS = 2000
"""Training problems that are made even for the shortest look."""


@dataclass
class Job:
    """One run of the quickstart: train by a recipe, then evaluate, all in one process.

    Attributes:
        name: of the recipe and of the run directory.
        title: what the report calls it.
        command: `sft` or `grpo`.
        needs: the jobs whose models it starts from.
        threads: CPU threads that it may use.
        training: the command line that trains it.
        evaluations: the command line of each evaluation, by the file that it writes.
    """

    name: str
    title: str
    command: str = "sft"
    needs: Sequence[str] = ()
    threads: int = 1
    training: list[str] = field(default_factory=list)
    evaluations: dict[Path, list[str]] = field(default_factory=dict)
    process: subprocess.Popen | None = None
    status: str = "waits"


def quickstart_jobs() -> list[Job]:
    """The jobs in the order of the table, the longest chain of them first where they compete for a core."""
    return [
        Job("cot", "CoT (written)"),
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
        float,
        typer.Option(
            "--scale", help="Share of the optimisation steps (and training problems), for a quick look."
        ),
    ] = 1.0,
) -> None:
    """Train a backbone, ATP-Latent (SFT, then RL) and its baselines on a laptop, and write the report."""
    console = Console(highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    jobs = quickstart_jobs()
    for job in jobs:
        _plan(job, output, num_problems, seed, scale)
    record = _Record(output / "quickstart.json")
    if any(_pending(job, output, num_problems, record) for job in jobs):
        with _interruptible(), record.counting():
            try:
                _run_all(jobs, output, num_problems, workers, console, record)
            finally:
                _stop(jobs)
    page = build_report(
        output,
        [ReportEntry(job.name, job.title, output / job.name) for job in jobs],
        seconds=record.seconds(),
        title="latentplan quickstart",
        command=command_line(),
    )
    console.print(_table(json.loads((output / "summary.json").read_text()), jobs))
    console.print(Text(f"{record.seconds():.0f} s of training and evaluation"))
    console.print(Text(f"report:  {page}\nsummary: {output / 'summary.json'}"), soft_wrap=True)


def _plan(job: Job, output: Path, num_problems: int, seed: int, scale: float) -> None:
    """Fills in the command lines of a job: training, greedy and sampled evaluation."""
    run = output / job.name
    settings = yaml.safe_load(find_recipe(f"quickstart/{job.name}").read_text())
    train = [job.command, "--config", f"quickstart/{job.name}", "--output_dir", str(run)]
    train += ["--torch_threads", str(job.threads), "--seed", str(seed)]
    if job.needs:
        train += ["--model_name_or_path", str(output / job.needs[0])]
    if scale != 1.0:
        train += _scaled(settings, scale)
    job.training = train
    evaluate = ["evaluate", str(run), "--benchmark", BENCHMARK, "--num_problems", str(num_problems)]
    evaluate += ["--max_new_tokens", str(MAX_NEW_TOKENS), "--batch_size", "250", "--torch_threads", "1"]
    for temperature, flags in ((0.0, []), (1.0, ["--temperature", "1", "--no_latent_use"])):
        stem = file_stem(BENCHMARK, Sampling(temperature, temperature, MAX_NEW_TOKENS), 1, 0)
        job.evaluations[run / "evaluation" / f"{stem}.json"] = [*evaluate, *flags]


def _pending(job: Job, output: Path, num_problems: int, record: _Record) -> list[list[str]]:
    """The commands of a job that have not been carried out yet."""
    model = output / job.name / "model" / "config.json"
    trained = model.is_file() and record.has_trained(job)
    results = job.evaluations.items()
    return [
        *([] if trained else [job.training]),
        *(command for file, command in results if not _is_evaluated(file, model, num_problems)),
    ]


def _is_evaluated(file: Path, model: Path, num_problems: int) -> bool:
    """Whether there is a result of this model, on as many problems."""
    try:
        newer = file.stat().st_mtime >= model.stat().st_mtime
        return newer and json.loads(file.read_text())["num_problems"] == num_problems
    except (OSError, ValueError, KeyError, TypeError):
        return False


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


def _scaled(settings: dict, scale: float) -> list[str]:
    """Flags that shorten a recipe, and make fewer problems for it."""
    flags = ["--logging_steps", "1"]
    if scale < 1:
        flags += ["--dataset_size", str(max(FEWEST_PROBLEMS, round(settings["dataset_size"] * scale)))]
    if "max_steps" in settings:
        steps = max(1, round(settings["max_steps"] * scale))
        return [*flags, "--max_steps", str(steps), "--save_steps", str(steps)]
    lengths = settings["curriculum_steps"]
    lengths = lengths if isinstance(lengths, list) else [lengths]
    scaled = [str(max(1, round(length * scale))) for length in lengths]
    return [*flags, "--curriculum_steps", *scaled]


def _run_all(
    jobs: Sequence[Job], output: Path, num_problems: int, workers: int, console: Console, record: _Record
) -> None:
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
        while True:
            for job in map(by_name.__getitem__, START_ORDER):
                if job.process is not None:
                    _look_after(job, output, record)
                busy = sum(other.process is not None for other in jobs)
                ready = job.status == "waits" and all(by_name[name].status == "done" for name in job.needs)
                if ready and busy < workers:
                    _start(job, output, _pending(job, output, num_problems, record))
                    progress.start_task(bars[job.name])
                reached = _total_steps(job) if job.status == "done" else _step_reached(output / job.name)
                progress.update(bars[job.name], completed=reached, status=job.status)
            record.save()
            if all(job.status == "done" for job in jobs):
                return
            time.sleep(0.2)


def _start(job: Job, output: Path, commands: Sequence[Sequence[str]]) -> None:
    """Starts the process of a job; one without commands is done."""
    if not commands:
        job.status = "done"
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"}
    with _log(job, output).open("w" if job.training in commands else "a") as log:
        job.process = subprocess.Popen(
            [sys.executable, "-m", "latentplan.cli.child", json.dumps(commands)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    job.status = "trains"


def _look_after(job: Job, output: Path, record: _Record) -> None:
    """Notes where a job has got to, and whether it has ended."""
    assert job.process is not None
    code = job.process.poll()
    if code is None:
        job.status = "evaluates" if (output / job.name / "model" / "config.json").is_file() else "trains"
        return
    job.process = None
    if code != 0:
        fail(f"{job.title} ended with exit status {code}:\n{_tail(_log(job, output))}")
    record.note(job)
    job.status = "done"


def _log(job: Job, output: Path) -> Path:
    return output / f"{job.name}.log"


def _total_steps(job: Job) -> int:
    """Optimisation steps of a job's training."""
    arguments = job.training
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
        low, high = row["interval"] or (None, None)
        table.add_row(
            job.title,
            percent(row["accuracy"]),
            f"{percent(low)} to {percent(high)}",
            percent(row["accuracy_sampled"]),
            decimal(row["tokens"]),
            percent(row["coherence"]),
            decimal(row["seconds"], 0),
        )
    read = percent(summary["reconstruction"])
    table.caption = f"the decoder reads {read} of ATP-Latent's held-out steps (SFT) exactly"
    return table


class _Record:
    """`quickstart.json`: the wall seconds of the whole job, through interruptions, and what was trained."""

    def __init__(self, path: Path):
        self.path = path
        try:
            saved = json.loads(path.read_text())
        except (OSError, ValueError):
            saved = {}
        self.saved = float(saved.get("seconds", 0.0))
        self.started: float | None = None
        self.trained: dict[str, str] = saved.get("trained", {})

    @contextmanager
    def counting(self) -> Iterator[None]:
        """The clock runs."""
        self.started = time.monotonic()
        try:
            yield
        finally:
            self.saved, self.started = self.seconds(), None
            self.save()

    def seconds(self) -> float:
        """Seconds so far."""
        running = 0.0 if self.started is None else time.monotonic() - self.started
        return round(self.saved + running, 1)

    def note(self, job: Job) -> None:
        """The job has been trained."""
        self.trained[job.name] = _fingerprint(job)

    def has_trained(self, job: Job) -> bool:
        """Whether the job has been trained by the command and recipe that it has now."""
        return self.trained.get(job.name) == _fingerprint(job)

    def save(self) -> None:
        """Writes it all down."""
        values = {"seconds": self.seconds(), "trained": self.trained}
        write_atomically(self.path, json.dumps(values, indent=2) + "\n")


def _fingerprint(job: Job) -> str:
    recipe = find_recipe(f"quickstart/{job.name}").read_text()
    return hashlib.sha256(json.dumps([recipe, job.training]).encode()).hexdigest()
