"""The options that several commands share, each with one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from latentplan.common.files import read_mapping
from latentplan.problems.problem import DataError

ModelFolder = Annotated[Path, typer.Argument(help="A run, or a model folder.")]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0.0, help="Of stops and text tokens; 0 takes the most probable."),
]
LatentTemperature = Annotated[
    float | None,
    typer.Option("--latent_temperature", min=0.0, help="Scale of σ; 0 uses μ. As --temperature if absent."),
]
NumGenerations = Annotated[
    int, typer.Option("--num_generations", min=1, help="Trajectories of each question; needs a temperature.")
]
MaxNewTokens = Annotated[
    int, typer.Option("--max_new_tokens", min=1, help="Text tokens of a trajectory at most.")
]
TokensPerLatent = Annotated[
    int | None,
    typer.Option(
        "--compression_factor",
        min=1,
        help="CoLaR: tokens of the chain that a latent stands for; as the model says if absent.",
    ),
]
InputRuleName = Annotated[
    str | None,
    typer.Option(
        "--input_rule",
        help="What is read after each token of text: plain, soft_thinking, gumbel_mixture, or a rule of "
        "yours, package.module:Class; as the model says if absent.",
    ),
]
InputRuleSettings = Annotated[
    str | None,
    typer.Option(
        "--input_rule_settings", help="The rule's own settings, such as '{width: 8, temperature: 0.5}'."
    ),
]
NumProblems = Annotated[
    int, typer.Option("--num_problems", "--limit", min=1, help="Problems of a benchmark at most.")
]
Split = Annotated[str, typer.Option("--split", help="Which part to take from the hub or from minigsm.")]
BatchSize = Annotated[int, typer.Option("--batch_size", min=1, help="Trajectories at a time.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the sampling; the problems do not depend on it.")]
Device = Annotated[
    str | None, typer.Option("--device", help="Such as cuda:1 or cpu; by default the GPU, if there is one.")
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--dataset_columns",
        help="Which column holds which field, where the columns tell no known format: "
        "'{question: problem, steps: solution, answer: final}'.",
    ),
]


def yes_or_no(text: str | bool) -> bool:
    """Returns the value of a flag such as `--trust_remote_code true`. Raises typer.BadParameter for anything
    else.
    """
    value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
        str(text).lower()
    )
    if value is None:
        raise typer.BadParameter(f"must be true or false, got {text!r}")
    return value


TrustRemoteCode = Annotated[
    Any,  # as a bool it would be a flag without a value, unlike that of sft and grpo
    typer.Option(
        "--trust_remote_code",
        parser=yes_or_no,
        metavar="true|false",
        help="Run code that the model folder names: a head of its maker's, a kernel of the hub, a tokenizer.",
    ),
]
TorchThreads = Annotated[
    int | None,
    typer.Option("--torch_threads", min=1, help="CPU threads of PyTorch; its own choice if absent."),
]


def column_map(text: str | None) -> dict[str, str] | None:
    """Returns the value of `--dataset_columns`. Raises DataError if it is no mapping."""
    if text is None:
        return None
    columns = read_mapping(text)
    if columns is None:
        raise DataError(f"--dataset_columns must be a mapping such as {{question: problem}}, got {text!r}")
    return columns
