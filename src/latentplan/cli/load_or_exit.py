"""How commands open a model, and how they end when something that they were given is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
import typer
from rich.console import Console
from rich.text import Text

from latentplan.common.files import read_mapping
from latentplan.common.run_files import without_model
from latentplan.common.secrets import masked_text
from latentplan.encoding.unreadable import UnreadableTextError
from latentplan.modeling.loading import LoadedModel, load_model
from latentplan.modeling.sampling import Sampling
from latentplan.problems.formats.own_data import ColumnMap
from latentplan.problems.problem import Problem
from latentplan.problems.sources import place_in_set

_LONGEST_MESSAGE = 4000


def fail(message: object) -> NoReturn:
    """Prints the message in red on standard error and ends the command with exit status 2."""
    text = masked_text(str(message))
    if len(text) > _LONGEST_MESSAGE:  # a damaged file may put a megabyte into a name
        text = f"{text[: _LONGEST_MESSAGE - 500]} … {text[-400:]}"
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"error: {text}", style="red"))
    raise typer.Exit(2)


def check_samples(sampling: Sampling, num_generations: int) -> None:
    """Ends the command if it asks for several trajectories that would all be the same."""
    if num_generations > 1 and sampling.temperature == sampling.latent_temperature == 0:
        fail(
            f"{num_generations} greedy trajectories of a question are all the same: set --temperature above 0"
        )


def _choose_tokens_per_latent(model: LoadedModel, tokens: int) -> None:
    try:
        model.reasoner.config.set_tokens_per_latent(tokens)
    except ValueError as error:
        raise ValueError(f"--compression_factor: {error}") from error


def open_model(
    folder: Path,
    device: str | None = None,
    torch_threads: int | None = None,
    tokens_per_latent: int | None = None,
    trust_remote_code: bool = False,
    input_rule: str | None = None,
    input_rule_settings: str | None = None,
) -> LoadedModel:
    """Returns the model in a run or model folder, on `device` (by default the GPU, if any); else the command
    ends.

    Args:
        folder: the run or model folder.
        device: such as cuda:1.
        torch_threads: CPU threads of PyTorch; None leaves them.
        tokens_per_latent: tokens of the chain of thought that a latent stands for, where it stands for no
            step (CoLaR); None as the model says.
        trust_remote_code: whether code may run that the folder names.
        input_rule, input_rule_settings: what is read after each token, and its settings as YAML; None as the
            model says.
    """
    if torch_threads is not None:
        torch.set_num_threads(torch_threads)
    try:
        model = load_model(folder, trust_remote_code)
        model.processor.refuses_unknown_words = True
        if tokens_per_latent is not None:
            _choose_tokens_per_latent(model, tokens_per_latent)
        if input_rule is not None or input_rule_settings is not None:
            settings = None
            if input_rule_settings is not None:
                settings = read_mapping(input_rule_settings)
                if settings is None:
                    raise ValueError(f"--input_rule_settings must be a mapping, got {input_rule_settings!r}")
            model.reasoner.set_input_rule(input_rule or model.reasoner.config.input_rule, settings)
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        for part in (model.reasoner, model.step_decoder):
            if part is not None:
                part.to(target)  # type: ignore[arg-type]
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        fail(error)
    return model


def refuse_unreadable(
    model: LoadedModel,
    arguments: Sequence[str],
    problems: Mapping[str, Sequence[Problem]],
    *,
    split: str = "test",
    columns: ColumnMap | None = None,
) -> None:
    """Ends the command where the model cannot read a problem, before anything is answered.

    Args:
        model: that is to answer.
        arguments: as of `load_benchmarks`, with what they were read by.
        problems: that it returned.
        split, columns: how they were read.
    """
    for argument, chosen in zip(arguments, problems.values(), strict=True):
        try:
            for encoded, problem in zip(model.processor.encode_all(chosen), chosen, strict=True):
                model.processor.check_length(len(encoded.question), problem)
        except UnreadableTextError as error:
            location = place_in_set(argument, error.problem, split=split, columns=columns)
            fail(f"{location}: {error}")


def names_of(models: Sequence[Path]) -> list[str]:
    """Returns the runs' folders, with as many of those above them as tell them apart.

    Raises:
        ValueError: one is given twice.
    """
    runs = [without_model(model.resolve()) for model in models]
    if len(set(runs)) < len(runs):
        raise ValueError("the same model is given twice")
    depth = 1
    while len({run.parts[-depth:] for run in runs}) < len(runs):
        depth += 1
    return ["/".join(run.parts[-depth:]) for run in runs]
