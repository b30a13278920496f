"""The same small sweep of learning rates for every recipe, judged on validation problems of the first seed.

Supervised methods and RL need rates that are powers of ten apart, so the sweep can also be of multiples of
each recipe's own rate.

OUTPUT/sweep/NAME-lrRATE/   a run for each rate; the best becomes OUTPUT/SEED/NAME
OUTPUT/sweep/NAME.json      what was reached and what was chosen
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentplan.common.files import write_atomically
from latentplan.common.run_files import file_stem
from latentplan.experiments.comparison_runs import TRUST, Evaluations, Runs
from latentplan.experiments.comparison_spec import Entry
from latentplan.experiments.jobs import Commands, Job

VALIDATION = "validation"


@dataclass(frozen=True)
class Rates:
    """Learning rates, or factors of each recipe's own.

    Attributes:
        numbers: the rates or factors.
        relative: whether they are factors.
    """

    numbers: tuple[float, ...] = ()
    relative: bool = False

    def of(self, own: float) -> list[float]:
        """Returns what to try for a recipe whose own rate this is."""
        return [float(f"{own * number:.6g}") for number in self.numbers] if self.relative else [*self.numbers]

    def __str__(self) -> str:
        return ", ".join(f"{'x' if self.relative else ''}{number:g}" for number in self.numbers)


@dataclass(frozen=True)
class Sweep:
    """Learning rates to choose from.

    Attributes:
        runs: of the comparison.
        rates: what is tried; without rates every recipe keeps its own.
        seed: the first of the comparison.
        benchmark: the argument of the validation problems.
        label: their short name.
        num_problems: how many they are.
        evaluations: of the comparison.
    """

    runs: Runs
    rates: Rates
    seed: int
    benchmark: str
    label: str
    num_problems: int
    evaluations: Evaluations

    def covers(self, entry: Entry) -> bool:
        """Returns whether a learning rate is chosen for an entry: it is a row, and there are rates."""
        return bool(self.rates.numbers) and entry.listed

    def job_names(self, entry: Entry) -> list[str]:
        """Names the jobs that have to end before the rate of an entry can be chosen."""
        return [f"sweep/{entry.name}/{rate:g}" for rate in self.tried(entry)]

    def tried(self, entry: Entry) -> list[float]:
        """Returns the learning rates of an entry to choose from; none where nothing is chosen for it.

        Raises:
            ValueError: factors were given, and the recipe has no learning rate of its own.
        """
        if not self.covers(entry):
            return []
        own = entry.settings.get("learning_rate")
        if own is None and self.rates.relative:
            raise ValueError(
                f"--learning_rates {self.rates}: the recipe of {entry.name} has no learning_rate of its own; "
                "give rates instead, such as 1e-3,2e-3"
            )
        return self.rates.of(float(own or 0.0))

    def jobs(self, entry: Entry, total_steps: int | None) -> list[Job]:
        """Returns a job for each rate."""
        needs = [] if entry.start is None else [f"{self.seed}/{entry.start}"]
        return [
            Job(
                name,
                f"{entry.title}, rate {rate:g}",
                run=self._place(entry.name, rate),
                log=self.runs.output / "logs" / f"sweep-{entry.name}-lr{rate:g}.log",
                pending=lambda rate=rate: self.pending(entry, rate),  # type: ignore[misc]
                needs=needs,
                total_steps=total_steps,
                threads=self.runs.threads,
            )
            for name, rate in zip(self.job_names(entry), self.tried(entry), strict=True)
        ]

    def folder(self, name: str, rate: float) -> Path:
        """Returns the run of an entry with a learning rate, as long as none is chosen."""
        return self.runs.output / "sweep" / f"{name}-lr{rate:g}"

    def _place(self, name: str, rate: float) -> Path:
        """Returns where that run is now: the chosen one has become that of the first seed."""
        return self.runs.folder(self.seed, name) if rate == self.chosen(name) else self.folder(name, rate)

    def pending(self, entry: Entry, rate: float) -> Commands:
        """Returns what is left to do for one rate; nothing where the choice has been made."""
        if self.chosen(entry.name) is not None:
            return []
        self.runs.write_recipe(entry.name)
        run = self.folder(entry.name, rate)
        training = self.runs.training(self.seed, entry.name, run, learning_rate=rate)
        commands = self.runs.pending_training(training, run)
        return commands + (
            [self._validation(entry.name, run)] if commands or self._accuracy(run) is None else []
        )

    def _validation(self, name: str, run: Path) -> list[str]:
        command = ["evaluate", str(run), "--benchmark", self.benchmark, "--split", VALIDATION]
        command += ["--num_problems", str(self.num_problems), "--output", str(run / VALIDATION)]
        command += ["--max_new_tokens", str(self.evaluations.max_new_tokens), "--no_latent_use"]
        command += ["--batch_size", str(self.evaluations.batch_size)]
        command += TRUST if self.runs.names_code(name) else []
        threads = self.runs.threads
        return command if threads is None else [*command, "--torch_threads", str(threads)]

    def _accuracy(self, run: Path) -> float | None:
        stem = file_stem(self.label, 0.0, 0.0, 1, 0)
        try:
            return float(
                json.loads((run / VALIDATION / f"{stem}.json").read_text(encoding="utf-8"))["accuracy"][
                    "estimate"
                ]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def chosen(self, name: str) -> float | None:
        """Returns the rate that has been chosen for an entry, by the same sweep."""
        record = self.record(name)
        return None if record is None else float(record["chosen"])

    def record(self, name: str) -> dict[str, Any] | None:
        """Reads what the sweep of an entry has found; None where there is nothing yet, or it was another
        sweep.
        """
        try:
            record = json.loads(self._file(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if record.get("fingerprint") == self._fingerprint(name) else None

    def choose(self, name: str) -> float:
        """Returns the rate with the best validation accuracy, the smaller of two that are equal.

        Its run becomes that of the comparison's first seed.
        """
        chosen = self.chosen(name)
        if chosen is None:
            tried = self.tried(self.runs.entries[name])
            found = {rate: self._accuracy(self.folder(name, rate)) for rate in tried}
            accuracies: Mapping[float, float] = {
                rate: accuracy for rate, accuracy in found.items() if accuracy is not None
            }
            chosen = max(sorted(accuracies), key=lambda rate: accuracies[rate])
            record = {
                "chosen": chosen,
                "accuracies": {f"{rate:g}": accuracy for rate, accuracy in accuracies.items()},
                "benchmark": self.label,
                "split": VALIDATION,
                "num_problems": self.num_problems,
                "seed": self.seed,
                "fingerprint": self._fingerprint(name),
            }
            write_atomically(self._file(name), json.dumps(record, indent=2) + "\n")
        self._adopt(name, chosen)
        return chosen

    def _adopt(self, name: str, rate: float) -> None:
        winner, run = self.folder(name, rate), self.runs.folder(self.seed, name)
        if winner.is_dir() and not run.exists():
            run.parent.mkdir(parents=True, exist_ok=True)
            winner.rename(run)

    def _file(self, name: str) -> Path:
        return self.runs.output / "sweep" / f"{name}.json"

    def _fingerprint(self, name: str) -> str:
        """Identifies all that decides the choice: the settings of the entry and of its starts, and the
        sweep's.
        """
        settings, entry = [], self.runs.entries.get(name)
        while entry is not None:
            settings.append(entry.settings)
            entry = self.runs.entries.get(entry.start or "")
        sweep = [str(self.rates), self.seed, self.benchmark, self.num_problems]
        text = json.dumps([settings, sweep, self.evaluations.max_new_tokens], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()
