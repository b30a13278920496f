"""`latentplan push`: a finished run's model, with its card, to the Hugging Face hub.

latentplan push runs/NAME OWNER/NAME --private
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentplan.cli.load_or_exit import fail


def push(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME; made where it does not exist.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Of a new repository; the owner's default if absent."),
    ] = None,
) -> None:
    """Push a finished run's model to the Hugging Face hub, with a model card and its evaluations."""
    from latentplan.training.hub import push_run

    try:
        typer.echo(push_run(run, repository, private))
    except ValueError as error:
        fail(error)
