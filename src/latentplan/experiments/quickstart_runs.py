"""The runs of `latentplan quickstart`: a backbone, ATP-Latent and its baselines, trained, then evaluated.

CoT, ATP-Latent's supervised stage and RL run twice: on chains for every problem, where imitation leaves RL
nothing to do, and on chains for a few hundred, where RL on the answers of the others resumes where imitation
ends.

The runs form a small graph; two of them train side by side, each on its own core, because passes over one
latent position are too small to share. Everything resumes where it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console, RenderableType

from latentplan.common.files import write_atomically
from latentplan.common.run_files import file_stem, result_file, result_of, trained_model
from latentplan.common.text_table import decimal, percent, terminal_table
from latentplan.experiments.jobs import Job, run_jobs
from latentplan.experiments.recipes import count_steps, find_recipe, scaled_settings

BENCHMARK = "minigsm:quickstart"
MAX_NEW_TOKENS = 48
FEW = 500
"""Problems with a labelled chain in the recipes of `few_labels`."""


@dataclass
class Member:
    """One run of the quickstart: train by a recipe, then evaluate, all in one process.

    Attributes:
        name: of the run directory.
        title: what the report calls it.
        recipe: by name.
        command: `sft` or `grpo`.
        needs: the members whose models it starts from.
        total_steps: optimisation steps.
        training: the command line that trains it.
        evaluations: the command line of each evaluation, by the file that it writes.
    """

    name: str
    title: str
    recipe: str
    command: str = "sft"
    needs: Sequence[str] = ()
    total_steps: int | None = None
    training: list[str] = field(default_factory=list)
    evaluations: dict[Path, list[str]] = field(default_factory=dict)


def quickstart_members() -> list[Member]:
    """Returns the members in the order of the table."""
    return [
        Member("cot", "CoT (written)", "quickstart/cot"),
        Member("no_cot", "No-CoT", "quickstart/no_cot", needs=["cot"]),
        Member("coconut", "Coconut", "quickstart/coconut", needs=["cot"]),
        Member("atp_latent_sft", "ATP-Latent, SFT", "quickstart/atp_latent_sft", needs=["cot"]),
        Member("atp_latent_rl", "ATP-Latent, RL", "quickstart/atp_latent_rl", "grpo", ["atp_latent_sft"]),
        Member("cot_500", f"CoT, {FEW} chains", "few_labels/cot"),
        Member(
            "atp_latent_500_sft",
            f"ATP-Latent, SFT, {FEW} chains",
            "few_labels/atp_latent_sft",
            needs=["cot_500"],
        ),
        Member(
            "atp_latent_500_rl",
            f"ATP-Latent, RL from {FEW} chains",
            "few_labels/grpo_likelihood",
            "grpo",
            ["atp_latent_500_sft"],
        ),
    ]


START_ORDER = (
    "cot_500",
    "cot",
    "atp_latent_500_sft",
    "atp_latent_sft",
    "coconut",
    "atp_latent_500_rl",
    "atp_latent_rl",
    "no_cot",
)
"""The longest chain of them first where they compete for a core."""


def plan_member(member: Member, output: Path, num_problems: int, seed: int, scale: float) -> None:
    """Fills in the command lines of a member: training, greedy and sampled evaluation.

    Args:
        member: which.
        output: folder of the runs.
        num_problems: of an evaluation.
        seed: of training.
        scale: share of the optimisation steps.
    """
    run = output / member.name
    settings = yaml.safe_load(find_recipe(member.recipe).read_text(encoding="utf-8"))
    train = [member.command, "--config", member.recipe, "--output_dir", str(run)]
    train += ["--torch_threads", "1", "--seed", str(seed)]
    if member.needs:
        train += ["--model_name_or_path", str(output / member.needs[0])]
    scaled = scaled_settings(settings, scale)
    for name, value in scaled.items():
        train += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    member.training, member.total_steps = train, count_steps({**settings, **scaled})
    evaluate = ["evaluate", str(run), "--benchmark", BENCHMARK, "--num_problems", str(num_problems)]
    evaluate += ["--max_new_tokens", str(MAX_NEW_TOKENS), "--batch_size", "250", "--torch_threads", "1"]
    for temperature, flags in ((0.0, []), (1.0, ["--temperature", "1", "--no_latent_use"])):
        stem = file_stem(BENCHMARK, temperature, temperature, 1, 0)
        member.evaluations[result_file(run, stem)] = [*evaluate, *flags]


def pending(member: Member, output: Path, num_problems: int, record: QuickstartRecord) -> list[list[str]]:
    """Returns the commands of a member that have not been carried out yet."""
    model = trained_model(output / member.name)
    trained = model.is_file() and record.has_trained(member)
    results = member.evaluations.items()
    return [
        *([] if trained else [member.training]),
        *(command for file, command in results if result_of(file, model).get("num_problems") != num_problems),
    ]


def run_members(
    members: Sequence[Member],
    output: Path,
    num_problems: int,
    workers: int,
    console: Console,
    record: QuickstartRecord,
) -> None:
    """Starts each member when what it needs is done and a core is free."""
    by_name = {member.name: member for member in members}

    def job(member: Member) -> Job:
        return Job(
            member.name,
            member.title,
            run=output / member.name,
            log=output / f"{member.name}.log",
            pending=lambda: pending(member, output, num_problems, record),
            needs=member.needs,
            total_steps=member.total_steps,
        )

    run_jobs(
        [job(by_name[name]) for name in START_ORDER],
        workers,
        console,
        on_done=lambda done: record.note(by_name[done.name]),
        on_turn=record.save,
    )


def quickstart_table(summary: dict, members: Sequence[Member]) -> RenderableType:
    """Builds the comparison from what summary.json holds."""
    rows = []
    for member in members:
        row = summary["methods"][member.name]
        low, high = row["interval"] or (None, None)
        rows.append(
            [
                member.title,
                percent(row["accuracy"]),
                f"{percent(low)} to {percent(high)}",
                percent(row["accuracy_sampled"]),
                decimal(row["tokens"]),
                percent(row["coherence"]),
                decimal(row["seconds"], 0),
            ]
        )
    read = percent(summary["reconstruction"])
    return terminal_table(
        ["method", "accuracy", "interval", "sampled", "tokens", "coherence", "seconds"],
        rows,
        f"held-out {BENCHMARK}: accuracy with a 95% interval, greedy; and sampled at temperature 1",
        title_justify="center",
        caption=f"the decoder reads {read} of the held-out steps exactly (ATP-Latent, SFT)",
    )


class QuickstartRecord:
    """`quickstart.json`: the wall seconds of the whole job, through interruptions, and what was trained."""

    def __init__(self, path: Path):
        self.path = path
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            saved = {}
        self.saved = float(saved.get("seconds", 0.0))
        self.started: float | None = None
        self.trained: dict[str, str] = saved.get("trained", {})

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Lets the clock run."""
        self.started = time.monotonic()
        try:
            yield
        finally:
            self.saved, self.started = self.seconds(), None
            self.save()

    def seconds(self) -> float:
        """Returns the seconds so far."""
        running = 0.0 if self.started is None else time.monotonic() - self.started
        return round(self.saved + running, 1)

    def note(self, member: Member) -> None:
        """Notes that the member has been trained."""
        self.trained[member.name] = _fingerprint(member)

    def has_trained(self, member: Member) -> bool:
        """Returns whether the member has been trained by the command and recipe that it has now."""
        return self.trained.get(member.name) == _fingerprint(member)

    def save(self) -> None:
        """Writes the file."""
        values = {"seconds": self.seconds(), "trained": self.trained}
        write_atomically(self.path, json.dumps(values, indent=2) + "\n")


def _fingerprint(member: Member) -> str:
    recipe = find_recipe(member.recipe).read_text(encoding="utf-8")
    return hashlib.sha256(json.dumps([recipe, member.training]).encode()).hexdigest()
