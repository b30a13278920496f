"""`latentplan evaluate`: accuracy, tokens, plans and diagnostics of a model on benchmarks.

latentplan evaluate runs/NAME --benchmark minigsm:clock
latentplan evaluate runs/NAME --benchmark gsm8k --benchmark svamp=SVAMP.json --batch_size 256
latentplan evaluate runs/NAME --benchmark svamp --temperature 1 --num_generations 16        (pass@k)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from latentplan.cli.opening import check_samples, fail, open_model
from latentplan.cli.options import (
    BatchSize,
    Columns,
    CompressionFactor,
    Device,
    InputRuleName,
    InputRuleSettings,
    LatentTemperature,
    MaxNewTokens,
    ModelFolder,
    NumGenerations,
    Seed,
    Split,
    Temperature,
    TorchThreads,
    TrustRemoteCode,
    column_map,
)
from latentplan.encoding.control_tokens import ControlTokenError
from latentplan.evaluation.harness import evaluate as run_evaluation
from latentplan.evaluation.metrics import Prediction, PredictionWriter
from latentplan.evaluation.result_tables import results_table
from latentplan.evaluation.results import EvaluationResult
from latentplan.modeling.loading import LoadedModel, is_latent_checkpoint
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.token_loop import InputRule
from latentplan.problems.benchmarks import BENCHMARKS
from latentplan.problems.decontamination import TrainedQuestions
from latentplan.problems.formats.own_data import ColumnMap
from latentplan.problems.minigsm import PRESETS
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.sources import MINIGSM_PROBLEMS, evaluation_set, place_in_set
from latentplan.training.hub import write_model_card


@dataclass(frozen=True)
class _Run:
    """What is the same for every benchmark of one call."""

    model: LoadedModel
    sampling: Sampling
    seed: int
    num_generations: int
    batch_size: int
    latent_use: bool
    folder: Path
    trained: TrainedQuestions | None
    factor: int | None

    def stem(self, label: str) -> Path:
        """Where the results on a benchmark go, without the suffix."""
        stem = file_stem(label, self.sampling, self.num_generations, self.seed)
        stem = stem if self.factor is None else f"{stem}-r{self.factor}"
        rule = self.model.reasoner.config.input_rule
        return self.folder / (stem if rule == InputRule.name else f"{stem}-{_as_name(rule)}")


def _as_name(text: str) -> str:
    """Returns a text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", text)


def file_stem(label: str, sampling: Sampling, num_generations: int, seed: int) -> str:
    """The benchmark's name and, unless greedy, how it was sampled, so that neither replaces the other."""
    stem = _as_name(label)
    if sampling.temperature == sampling.latent_temperature == 0:
        return stem
    temperatures = f"t{sampling.temperature:g}-l{sampling.latent_temperature:g}"
    return f"{stem}-{temperatures}-n{num_generations}-seed{seed}"


Benchmark = Annotated[
    list[str],
    typer.Option(
        "--benchmark",
        help="NAME, FILE, NAME=FILE, or owner/name of the hub; or minigsm:PRESET. May be repeated. "
        f"Names: {', '.join(BENCHMARKS)}. Presets: {', '.join(PRESETS)}.",
    ),
]
NumProblems = Annotated[
    int | None,
    typer.Option(
        "--num_problems",
        "--limit",
        min=1,
        help=f"Problems of each benchmark at most; all by default, {MINIGSM_PROBLEMS} of minigsm.",
    ),
]
LatentUse = Annotated[
    bool,
    typer.Option("--latent_use/--no_latent_use", help="Answer again with the latents replaced."),
]
Output = Annotated[
    Path | None, typer.Option("--output", help="Folder of the results; the run's evaluation/ by default.")
]


def evaluate(
    model: ModelFolder,
    benchmark: Benchmark,
    num_problems: NumProblems = None,
    split: Split = "test",
    dataset_columns: Columns = None,
    temperature: Temperature = 0.0,
    latent_temperature: LatentTemperature = None,
    num_generations: NumGenerations = 1,
    max_new_tokens: MaxNewTokens = 128,
    compression_factor: CompressionFactor = None,
    input_rule: InputRuleName = None,
    input_rule_settings: InputRuleSettings = None,
    batch_size: BatchSize = 128,
    seed: Seed = 0,
    latent_use: LatentUse = True,
    output: Output = None,
    device: Device = None,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Evaluate a model on benchmarks: a table here, and files of results (JSON) and predictions (JSONL)."""
    latents = temperature if latent_temperature is None else latent_temperature
    sampling = Sampling(temperature, latents, max_new_tokens)
    check_samples(sampling, num_generations)
    try:
        problems = load_benchmarks(benchmark, num_problems, split=split, columns=column_map(dataset_columns))
    except ValueError as error:
        fail(error)
    loaded = open_model(
        model, device, torch_threads, compression_factor, trust_remote_code, input_rule, input_rule_settings
    )
    refuse_control_tokens(loaded, benchmark, problems, split=split, columns=column_map(dataset_columns))
    folder = output or evaluation_folder(model)
    run = _Run(
        loaded,
        sampling,
        seed,
        num_generations,
        batch_size,
        latent_use,
        folder,
        TrainedQuestions.load(model),
        compression_factor,
    )
    console = Console(highlight=False)
    console.print(results_table([_evaluate_one(run, label, problems[label], console) for label in problems]))
    for label in problems:
        stem = run.stem(label)
        console.print(Text(f"{stem}.json, predictions in {stem}.jsonl"), soft_wrap=True)
    if folder == evaluation_folder(model) and (folder.parent / "run.json").is_file():
        try:
            write_model_card(folder.parent)
        except ValueError as error:
            fail(error)


def load_benchmarks(
    arguments: list[str],
    num_problems: int | None,
    *,
    split: str = "test",
    columns: ColumnMap | None = None,
) -> dict[str, list[Problem]]:
    """The problems of each benchmark argument by its label.

    Raises:
        DataError: an argument names nothing, two have the same label, or a file is empty or cannot be read.
        ValueError: minigsm has fewer distinct problems than asked for.
    """
    problems: dict[str, list[Problem]] = {}
    for argument in arguments:
        label, load = evaluation_set(argument, limit=num_problems, split=split, columns=columns)
        if label in problems:
            raise DataError(f"two benchmarks are called {label!r}: evaluate them in two calls, with --output")
        problems[label] = load()
        if not problems[label]:
            raise DataError(f"{argument!r} holds no problems")
    return problems


def refuse_control_tokens(
    model: LoadedModel,
    arguments: Sequence[str],
    problems: Mapping[str, Sequence[Problem]],
    *,
    split: str = "test",
    columns: ColumnMap | None = None,
) -> None:
    """Ends the command where a problem holds a control token of the model, before anything is answered.

    Args:
        model: that is to answer.
        arguments: as of `load_benchmarks`, with what they were read by.
        problems: that it returned.
        split, columns: how they were read.
    """
    for argument, chosen in zip(arguments, problems.values(), strict=True):
        try:
            model.encoder.encode_all(chosen)
        except ControlTokenError as error:
            place = place_in_set(argument, error.problem, split=split, columns=columns)
            fail(f"{place}: {error}")


def evaluation_folder(model: Path) -> Path:
    """`evaluation/` in the run that a model belongs to, or in the model folder without a run around it."""
    inside_run = model.name == "model" and is_latent_checkpoint(model)
    return (model.parent if inside_run else model) / "evaluation"


def is_evaluated(file: Path, model: Path, num_problems: int) -> bool:
    """Whether there is a result of this model, on as many problems."""
    try:
        newer = file.stat().st_mtime >= model.stat().st_mtime
        return newer and json.loads(file.read_text())["num_problems"] == num_problems
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _evaluate_one(run: _Run, label: str, problems: list[Problem], console: Console) -> EvaluationResult:
    stem = run.stem(label)
    with (
        PredictionWriter(stem.with_name(f"{stem.name}.jsonl")) as writer,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(label, total=len(problems) * run.num_generations)

        def on_progress(solved: list[Prediction]) -> None:
            writer.write(solved)
            progress.advance(task, len(solved))

        result, _ = run_evaluation(
            run.model,
            problems,
            benchmark=label,
            sampling=run.sampling,
            seed=run.seed,
            num_generations=run.num_generations,
            batch_size=run.batch_size,
            latent_use=run.latent_use,
            trained_on=None if run.trained is None else run.trained.count(problems),
            on_progress=on_progress,
        )
    result.save(stem.with_name(f"{stem.name}.json"))
    return result
