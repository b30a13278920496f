"""`latentplan evaluate`: accuracy, tokens, plans and diagnostics of a model on benchmarks.

latentplan evaluate runs/NAME --benchmark minigsm:clock
latentplan evaluate runs/NAME --benchmark gsm8k --benchmark svamp=SVAMP.json --batch_size 256
latentplan evaluate runs/NAME --benchmark svamp --temperature 1 --num_generations 16        (pass@k)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from latentplan.cli.load_or_exit import check_samples, fail, open_model, refuse_unreadable
from latentplan.cli.options import (
    BatchSize,
    Columns,
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
    TokensPerLatent,
    TorchThreads,
    TrustRemoteCode,
    column_map,
)
from latentplan.common.run_files import RECORD, as_name, file_stem, results_folder
from latentplan.evaluation.harness import evaluate as run_evaluation
from latentplan.evaluation.metrics import Prediction, PredictionWriter
from latentplan.evaluation.result_tables import results_table
from latentplan.evaluation.results import EvaluationResult
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.token_loop import InputRule
from latentplan.problems.benchmarks import BENCHMARKS
from latentplan.problems.decontamination import TrainedQuestions
from latentplan.problems.minigsm import PRESETS
from latentplan.problems.problem import Problem
from latentplan.problems.sources import MINIGSM_PROBLEMS, load_benchmarks
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
        """Returns where the results on a benchmark go, without the suffix."""
        stem = file_stem(
            label,
            self.sampling.temperature,
            self.sampling.latent_temperature,
            self.num_generations,
            self.seed,
        )
        stem = stem if self.factor is None else f"{stem}-r{self.factor}"
        rule = self.model.reasoner.config.input_rule
        return self.folder / (stem if rule == InputRule.name else f"{stem}-{as_name(rule)}")


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
    tokens_per_latent: TokensPerLatent = None,
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
        model, device, torch_threads, tokens_per_latent, trust_remote_code, input_rule, input_rule_settings
    )
    refuse_unreadable(loaded, benchmark, problems, split=split, columns=column_map(dataset_columns))
    folder = output or results_folder(model)
    run = _Run(
        loaded,
        sampling,
        seed,
        num_generations,
        batch_size,
        latent_use,
        folder,
        TrainedQuestions.load(model),
        tokens_per_latent,
    )
    console = Console(highlight=False)
    console.print(results_table([_evaluate_one(run, label, problems[label], console) for label in problems]))
    for label in problems:
        stem = run.stem(label)
        console.print(Text(f"{stem}.json, predictions in {stem}.jsonl"), soft_wrap=True)
    if folder == results_folder(model) and (folder.parent / RECORD).is_file():
        try:
            write_model_card(folder.parent)
        except ValueError as error:
            fail(error)


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
