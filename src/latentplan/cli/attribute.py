"""`latentplan attribute`: whether a gain, such as that of RL, came from the latents or from the answer words.

latentplan attribute runs/SFT runs/RL
latentplan attribute runs/SFT runs/RL --benchmark gsm8k --num_problems 500
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from latentplan.cli.load_or_exit import fail, names_of, open_model, refuse_unreadable
from latentplan.cli.options import (
    BatchSize,
    Columns,
    Device,
    MaxNewTokens,
    NumProblems,
    Split,
    TorchThreads,
    TrustRemoteCode,
    column_map,
)
from latentplan.common.run_files import file_stem, results_folder, run_of
from latentplan.evaluation.attribution import Attribution, check_pair, crossed_answers, take_apart
from latentplan.evaluation.result_tables import attribution_table
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.sources import load_benchmarks, own_preset


def attribute(
    before: Annotated[Path, typer.Argument(help="The run, or model folder, that the other started from.")],
    after: Annotated[Path, typer.Argument(help="The run, or model folder, that is better, or worse.")],
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark", help="One, as for evaluate; the first run's own minigsm preset if absent."
        ),
    ] = None,
    num_problems: NumProblems = 1000,
    split: Split = "test",
    dataset_columns: Columns = None,
    max_new_tokens: MaxNewTokens = 128,
    batch_size: BatchSize = 128,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder of the result; the second run's attribution/ by default."),
    ] = None,
    device: Device = None,
    torch_threads: TorchThreads = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Exchange two models' latents: how much of a gain is the latents', and how much the answer words'?"""
    try:
        argument = benchmark or own_preset(run_of(before))
        columns = column_map(dataset_columns)
        ((label, problems),) = load_benchmarks([argument], num_problems, split=split, columns=columns).items()
        one, other = (
            open_model(folder, device, torch_threads, trust_remote_code=trust_remote_code)
            for folder in (before, after)
        )
        check_pair(one, other)
        for each in (one, other):
            refuse_unreadable(each, [argument], {label: problems}, split=split, columns=columns)
        solved = crossed_answers(one, other, problems, max_new_tokens=max_new_tokens, batch_size=batch_size)
    except (ValueError, FileNotFoundError) as error:
        fail(error)
    found = Attribution(
        label, question_fingerprint(problems), len(problems), str(before), str(after), take_apart(solved)
    )
    console = Console(highlight=False)
    console.print(attribution_table(found))
    stem = file_stem(label, 0.0, 0.0, 1, 0)
    folder = output or results_folder(after, "attribution")
    console.print(Text(str(found.save(folder / f"{names_of([before])[0]}-{stem}.json"))), soft_wrap=True)
