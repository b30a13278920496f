"""How commands open a model, and how they end when something that they were given is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch
import typer
from rich.console import Console
from rich.text import Text

from latentplan.modeling.loading import LoadedModel, load_model


def fail(message: object) -> NoReturn:
    """Prints the message in red on standard error and ends the command with exit status 2."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"error: {message}", style="red"))
    raise typer.Exit(2)


def open_model(folder: Path, device: str | None = None) -> LoadedModel:
    """The model in a run or model folder, on `device` (by default the GPU, if any); else the command ends."""
    try:
        model = load_model(folder)
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        for part in (model.reasoner, model.step_decoder):
            if part is not None:
                part.to(target)  # type: ignore[arg-type]
    except (FileNotFoundError, RuntimeError) as error:
        fail(error)
    return model
