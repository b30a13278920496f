"""The runs of a comparison: where they lie, whether existing ones fit the comparison, and what is left.

OUTPUT/recipes/NAME.yaml   each recipe as it is trained
OUTPUT/SEED/NAME/          a run directory for each seed
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentplan.common.plugins import names_own_code
from latentplan.common.run_files import (
    file_stem,
    has_trained,
    is_finished,
    read_record,
    result_file,
    result_of,
    trained_model,
)
from latentplan.experiments.comparison_spec import Entry, write_recipe
from latentplan.experiments.jobs import Commands
from latentplan.experiments.recipes import parse_recipe, trainer_of
from latentplan.modeling.sampling import Sampling
from latentplan.training.configs import flatten_recipe
from latentplan.training.run_directory import (
    RunConflictError,
    differing_settings,
    weights_fingerprint,
)

TRUST = ["--trust_remote_code", "true"]


@dataclass(frozen=True)
class Benchmark:
    """One set of problems.

    Attributes:
        argument: of `latentplan evaluate --benchmark`.
        label: its short name.
        fingerprint: of its problems.
        num_problems: how many they are.
        questions: what they ask.
    """

    argument: str
    label: str
    fingerprint: str
    num_problems: int
    questions: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Returns all but the questions."""
        names = ("argument", "label", "fingerprint", "num_problems")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Evaluations:
    """What every run is evaluated on: greedily, and where `num_generations` is above 1 also sampled."""

    benchmarks: Sequence[Benchmark] = ()
    max_new_tokens: int = 128
    num_generations: int = 1
    batch_size: int = 128
    threads: int | None = None

    def samplings(self) -> list[tuple[Sampling, int]]:
        """Returns each way of sampling, with its number of trajectories."""
        greedy = (Sampling.greedy(self.max_new_tokens), 1)
        sampled = (Sampling(1.0, 1.0, self.max_new_tokens), self.num_generations)
        return [greedy] if self.num_generations == 1 else [greedy, sampled]

    def stem(self, benchmark: Benchmark, sampling: Sampling, num_generations: int) -> str:
        """Names the files of results, without the suffix."""
        return file_stem(
            benchmark.label, sampling.temperature, sampling.latent_temperature, num_generations, 0
        )

    def pending(self, run: Path, trusted: bool = False) -> Commands:
        """Returns the evaluations of a run that there are no results of; `trusted`, with code that the run
        names.
        """
        commands: Commands = []
        for sampling, count in self.samplings():
            left = defaultdict(list)
            for benchmark in self.benchmarks:
                if not self._is_done(run, benchmark, self.stem(benchmark, sampling, count), count):
                    left[benchmark.num_problems].append(benchmark)
            commands += [self._command(run, size, each, count) for size, each in left.items()]
        return [[*command, *TRUST] for command in commands] if trusted else commands

    def _command(self, run: Path, num_problems: int, left: Sequence[Benchmark], count: int) -> list[str]:
        command = ["evaluate", str(run), "--num_problems", str(num_problems)]
        for benchmark in left:
            command += ["--benchmark", benchmark.argument]
        command += ["--max_new_tokens", str(self.max_new_tokens), "--batch_size", str(self.batch_size)]
        if count > 1:
            command += ["--temperature", "1", "--num_generations", str(count), "--no_latent_use"]
        return command if self.threads is None else [*command, "--torch_threads", str(self.threads)]

    def _is_done(self, run: Path, benchmark: Benchmark, stem: str, count: int) -> bool:
        """Returns whether there is a result of this model, on these problems, with answers as long."""
        result = result_of(result_file(run, stem), trained_model(run))
        length = (result.get("sampling") or {}).get("max_new_tokens")
        found = (result.get("data_fingerprint"), result.get("num_generations"), length)
        return found == (benchmark.fingerprint, count, self.max_new_tokens)


class Runs:
    """The runs of some entries.

    Args:
        output: folder of the runs.
        entries: each after the one that it starts from.
        evaluations: of every listed run.
        threads: CPU threads of each; None leaves it to PyTorch.
        redo: delete a run that has other settings, instead of refusing it.
    """

    def __init__(
        self,
        output: Path,
        entries: Sequence[Entry],
        evaluations: Evaluations | None = None,
        threads: int | None = None,
        redo: bool = False,
    ):
        self.output, self.threads, self.redo = output, threads, redo
        self.entries: Mapping[str, Entry] = {entry.name: entry for entry in entries}
        self.evaluations = evaluations or Evaluations()

    def folder(self, seed: int, name: str) -> Path:
        """Returns the run directory of an entry."""
        return self.output / str(seed) / name

    def names_code(self, name: str) -> bool:
        """Returns whether an entry, or one that it starts from, names code of the user's, or trusts a
        model's.

        The models that come of it name that code too, and here the user has named it first.
        """
        entry = self.entries[name]
        named = [str(entry.settings.get(setting) or "") for setting in ("method", "latent_head", "thinking")]
        if entry.settings.get("trust_remote_code") or any(map(names_own_code, named)):
            return True
        return entry.start is not None and self.names_code(entry.start)

    def write_recipe(self, name: str, **chosen: Any) -> Path:
        """Writes the recipe of an entry as it is trained, with what has been chosen for it."""
        entry = self.entries[name]
        settings = {**entry.settings, **chosen}
        return write_recipe(self.output / "recipes" / f"{name}.yaml", settings, entry.recipe)

    def training(self, seed: int, name: str, folder: Path | None = None, **chosen: Any) -> list[str]:
        """Returns the command line that trains an entry, into its own folder or another one."""
        entry = self.entries[name]
        recipe = self.output / "recipes" / f"{name}.yaml"
        command = [entry.command, "--config", str(recipe), "--seed", str(seed)]
        command += ["--output_dir", str(folder or self.folder(seed, name))]
        if entry.start is not None:
            command += ["--model_name_or_path", str(self.folder(seed, entry.start))]
            command += TRUST if self.names_code(entry.start) else []
        if self.threads is not None:
            command += ["--torch_threads", str(self.threads)]
        return [*command, *(word for key, value in chosen.items() for word in (f"--{key}", str(value)))]

    def parsed(self, command: Sequence[str]) -> tuple[Any, ...]:
        """Returns the settings of a training command, as instances of its classes."""
        config = command[command.index("--config") + 1]
        _, classes = trainer_of(self.entries[Path(config).stem].settings)
        return parse_recipe(classes, list(command[1:]))

    def pending(self, seed: int, name: str, **chosen: Any) -> Commands:
        """Returns what is left to do for an entry: train it, evaluate it.

        Raises:
            RunConflictError: there is another run where it belongs, and it is not to be deleted.
        """
        self.write_recipe(name, **chosen)
        run = self.folder(seed, name)
        commands = self.pending_training(self.training(seed, name), run)
        return commands + (
            self.evaluations.pending(run, self.names_code(name)) if self.entries[name].listed else []
        )

    def pending_training(self, training: list[str], run: Path) -> Commands:
        """Returns the training command, unless the run has finished.

        Raises:
            RunConflictError: as `pending`.
        """
        conflicts = self.conflicts(training, run, also_starts=True)
        if conflicts:
            if not self.redo:
                raise RunConflictError(conflict_message({run: conflicts}))
            shutil.rmtree(run)
        return [] if is_finished(run) else [training]

    def conflicts(
        self,
        training: Sequence[str],
        run: Path,
        also_starts: bool = False,
        also_free: Sequence[str] = (),
    ) -> list[str]:
        """Says why the run in a folder is not what a command would train; empty where there is none.

        Args:
            also_starts: whether to compare the weights that it started from too, which have to be there.
            also_free: settings that may differ.
        """
        if not has_trained(run):
            return []
        settings = json.loads(json.dumps(flatten_recipe(self.parsed(training)), default=str))
        own = "--model_name_or_path" in training  # a run of the comparison: its weights count, not its path
        free = (*also_free, "model_name_or_path") if own else tuple(also_free)
        found = differing_settings(run, settings, free)
        if own and also_starts:
            start = weights_fingerprint(training[training.index("--model_name_or_path") + 1])
            if _pinned_start(run) not in (None, start):
                found.append("other weights to start from")
        return found

    def all_conflicts(
        self, seeds: Sequence[int], chosen: Callable[[str], Mapping[str, Any] | None]
    ) -> dict[Path, list[str]]:
        """Returns the runs that exist and are not those of the comparison, with what differs.

        Args:
            seeds: the comparison's.
            chosen: by entry, the settings chosen for it; None where they still have to be.
        """
        found = {}
        for name in self.entries:
            settings = chosen(name)
            self.write_recipe(name, **(settings or {}))
            free = ("learning_rate",) if settings is None else ()
            for seed in seeds:
                run = self.folder(seed, name)
                conflicts = self.conflicts(self.training(seed, name), run, also_free=free)
                if conflicts:
                    found[run] = conflicts
        return found


def conflict_message(conflicts: Mapping[Path, Sequence[str]]) -> str:
    """Says which runs are in the way, and what to do."""
    lines = [
        f"{run} holds a run with other settings ({'; '.join(differing)})"
        for run, differing in conflicts.items()
    ]
    return "\n".join([*lines, "choose another --output, or have them deleted and trained again with --redo"])


def _pinned_start(run: Path) -> str | None:
    return read_record(run).get("pinned", {}).get("start")
