"""`latentplan data make minigsm` and `latentplan data check`: make word problems, and check a data file.

latentplan data make minigsm --preset clock --count 50000 --output train.jsonl
latentplan data make minigsm --preset hard --split test --distractors 2 --count 1000 --output test.jsonl

latentplan data check train.jsonl
latentplan data check SVAMP.json --benchmark svamp
latentplan data check train.jsonl --model_name_or_path meta-llama/Llama-3.2-1B
latentplan data check mine.parquet --dataset_columns "{question: problem, steps: solution, answer: final}"
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.progress import track
from rich.text import Text

from latentplan.cli.options import Columns, column_map
from latentplan.common.text_table import terminal_table
from latentplan.encoding.control_tokens import latent_token_in, widespread_marks
from latentplan.encoding.unreadable import UnreadableTextError
from latentplan.problems.benchmarks import BENCHMARKS
from latentplan.problems.check import CheckReport, ControlTokenCheck, Doubt, check_file
from latentplan.problems.minigsm import PRESETS, MinigsmConfig, generate
from latentplan.problems.minigsm.presets import SPLITS
from latentplan.problems.problem import DataError, Problem

_HELP = {each.name: each.metadata["help"] for each in fields(MinigsmConfig)}


def _setting(name: str, *flags: str) -> Any:
    return typer.Option(*(flags or (f"--{name}",)), help=_HELP[name], show_default=False)


def minigsm(
    output: Annotated[str, typer.Option("--output", help="The JSONL file to write; - is standard output.")],
    preset: Annotated[
        str, typer.Option("--preset", help=f"A preset to start from: {', '.join(PRESETS)}.")
    ] = "default",
    split: Annotated[str, typer.Option("--split", help=f"One of {', '.join(SPLITS)}.")] = "train",
    count: Annotated[int, typer.Option("--count", min=0, help="How many problems.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal problems.")] = 0,
    world: Annotated[str | None, _setting("world")] = None,
    min_steps: Annotated[int | None, _setting("min_steps")] = None,
    max_steps: Annotated[int | None, _setting("max_steps")] = None,
    step_weights: Annotated[str | None, _setting("step_weights")] = None,
    distinct: Annotated[str | None, _setting("distinct")] = None,
    label: Annotated[str | None, _setting("label")] = None,
    number_scale: Annotated[int | None, _setting("number_scale")] = None,
    max_number: Annotated[int | None, _setting("max_number")] = None,
    operators: Annotated[str | None, _setting("operators")] = None,
    percentages: Annotated[bool | None, _setting("percentages", "--percentages/--no_percentages")] = None,
    decimals: Annotated[bool | None, _setting("decimals", "--decimals/--no_decimals")] = None,
    distractors: Annotated[int | None, _setting("distractors")] = None,
    families: Annotated[str | None, _setting("families")] = None,
    modulus: Annotated[int | None, _setting("modulus")] = None,
    max_addend: Annotated[int | None, _setting("max_addend")] = None,
    multipliers: Annotated[str | None, _setting("multipliers")] = None,
    phrasing: Annotated[str | None, _setting("phrasing")] = None,
) -> None:
    """Make word problems of one split; lists such as step weights are written with commas: 1,1,2.

    No problem (graph and numbers) is ever in two splits, whatever the seeds.
    """
    if preset not in PRESETS:
        raise typer.BadParameter(f"preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
    settings: dict[str, Any] = {
        name: value for name, value in locals().items() if name in _HELP and value is not None
    }
    try:
        config = replace(PRESETS[preset], **{name: _listed(name, value) for name, value in settings.items()})
        problems = generate(config, split=split, count=count, seed=seed)  # type: ignore[arg-type]
        _write(problems, count, output)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        raise typer.BadParameter(f"cannot write {output}: {error.strerror}") from None


def _listed(name: str, value: object) -> Any:
    """Returns the value of a setting; lists come as text with commas."""
    if name not in ("step_weights", "families", "multipliers"):
        return value
    parts = [part.strip() for part in str(value).split(",") if part.strip()]
    kind = {"step_weights": float, "families": str, "multipliers": int}[name]
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise ValueError(f"minigsm: {name} is {value!r}; it must be numbers with commas between") from None


def _write(problems: Iterable[Problem], count: int, output: str) -> None:
    console = Console(stderr=True)
    shown = track(problems, "minigsm", total=count, console=console, transient=True)
    with _opened(output) as file:
        for problem in shown:
            file.write(json.dumps(problem.to_json(), ensure_ascii=False) + "\n")
    if output != "-":
        console.print(f"{output}: {count:,} problems", highlight=False, soft_wrap=True)


@contextmanager
def _opened(output: str) -> Iterator[TextIO]:
    """Opens standard output, or a file that appears under its name only when it is complete."""
    if output == "-":
        yield sys.stdout
        return
    target = Path(output)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


_DOUBTS_SHOWN = 3
_BAR_WIDTH = 40


def check(
    file: Annotated[
        str, typer.Argument(help="The data file; or a benchmark's NAME, NAME=FILE, or owner/name of the hub.")
    ],
    benchmark: Annotated[
        str | None,
        typer.Option(help=f"Whose format it has, if its columns do not tell: {', '.join(BENCHMARKS)}."),
    ] = None,
    chain: Annotated[
        str | None, typer.Option(help="What the steps are made of: equations or sentences.")
    ] = None,
    dataset_columns: Columns = None,
    split: Annotated[str, typer.Option(help="Which part to take from the hub.")] = "train",
    examples: Annotated[int, typer.Option(min=0, help="How many problems to show.")] = 2,
    model_name_or_path: Annotated[
        str | None,
        typer.Option(
            "--model_name_or_path",
            help="Model to be trained or evaluated: rows with one of its control tokens are broken.",
        ),
    ] = None,
) -> None:
    """Check a data file: every broken row with its line and reason, steps, duplicates, what is doubtful.

    The exit status is 1 if any row is broken.
    """
    console = Console(soft_wrap=True, highlight=False)
    control_tokens = _widespread if model_name_or_path is None else _tokens_of(model_name_or_path)
    try:
        report = check_file(
            file,
            benchmark,
            chain=chain,
            columns=column_map(dataset_columns),
            split=split,
            num_examples=examples,
            control_tokens=control_tokens,
        )
    except DataError as error:
        console.print(Text(str(error), style="red"))
        raise typer.Exit(1) from None
    _show(report, console)
    if not report.ok:
        raise typer.Exit(1)


def _widespread(problem: Problem) -> tuple[str | None, Sequence[str]]:
    """Refuses tokens of every model of ours, and doubts those of many others, without a tokenizer."""
    error = latent_token_in(problem)
    return (str(error), ()) if error is not None else (None, widespread_marks(problem))


def _tokens_of(model: str) -> ControlTokenCheck:
    """Returns the check that training of a model makes; the command ends where there is no such model."""
    from transformers import AutoTokenizer

    from latentplan.cli.load_or_exit import fail
    from latentplan.common.run_files import model_in
    from latentplan.encoding.processor import ProblemProcessor
    from latentplan.encoding.tokenizers import add_special_tokens
    from latentplan.modeling.configuration import LatentReasonerConfig
    from latentplan.modeling.loading import find_model, load_tokenizer, processor_of

    try:
        if model_in(model) is not None:
            found = find_model(model)
            processor = processor_of(
                LatentReasonerConfig.from_pretrained(found), load_tokenizer(found, False)
            )
        else:
            tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            add_special_tokens(tokenizer)
            processor = ProblemProcessor(tokenizer)
    except (OSError, ValueError) as error:
        fail(error)

    processor.refuses_unknown_words = True

    def check_problem(problem: Problem) -> tuple[str | None, Sequence[str]]:
        try:
            processor(problem)
        except UnreadableTextError as error:
            return str(error), ()
        return None, ()

    return check_problem


def _show(report: CheckReport, console: Console) -> None:
    for problem in report.examples:
        console.print(_example(problem))
    if report.num_problems:
        console.print(_histogram(report))
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.answer_kinds.items())
        console.print(Text(f"answers: {kinds}"))
    for reason, doubts in _by_reason(report.doubts).items():
        console.print(Text(_warning(reason, doubts, report), style="yellow"))
    if report.num_duplicates:
        console.print(Text(f"warning: {report.num_duplicates} questions were asked before", style="yellow"))
    for error in report.errors:
        console.print(Text(str(error), style="red"))
    summary = f"{report.file}: {report.format}, {report.num_problems} good rows, {len(report.errors)} broken"
    console.print(Text(summary, style="green" if report.ok else "bold red"))


def _example(problem: Problem) -> Text:
    text = Text(problem.question + "\n")
    for step in problem.steps:
        text.append(f"  {step}\n", style="cyan")
    return text.append(f"  ### {problem.answer}\n", style="bold")


def _histogram(report: CheckReport) -> RenderableType:
    largest = max(report.step_counts.values())
    rows = [
        [str(steps), str(count), "█" * max(1, round(_BAR_WIDTH * count / largest))]
        for steps, count in report.step_counts.items()
    ]
    return terminal_table(["steps", "problems", ""], rows, num_left=3, box=None)


def _by_reason(doubts: tuple[Doubt, ...]) -> dict[str, list[Doubt]]:
    grouped: dict[str, list[Doubt]] = defaultdict(list)
    for doubt in doubts:
        grouped[doubt.reason].append(doubt)
    return grouped


def _warning(reason: str, doubts: list[Doubt], report: CheckReport) -> str:
    shown = ", ".join(f"{report.file}:{doubt.line} {doubt.step}" for doubt in doubts[:_DOUBTS_SHOWN])
    return f"warning: {len(doubts)} × {reason}: {shown}{', …' if len(doubts) > _DOUBTS_SHOWN else ''}"
