"""`latentplan`: the command line. A command's module is imported when the command is called, so that help and
mistakes are answered at once, without PyTorch.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from latentplan import __version__
from latentplan.cli import data_check, data_make
from latentplan.cli.deferred import DeferredCommand
from latentplan.common.secrets import masked_arguments

COMMANDS = {
    "quickstart": "quickstart",
    "sft": "train",
    "grpo": "train",
    "estimate": "estimate",
    "evaluate": "evaluate",
    "diagnose": "diagnose",
    "attribute": "attribute",
    "select": "select",
    "compare": "compare",
    "lm_eval": "lm_eval",
    "ask": "ask",
    "serve": "serve",
    "visualize": "visualize",
    "report": "report",
    "push": "push",
}
"""Each command, a function of its own name, and its module in this folder; in the order of the help."""


class _Commands(TyperGroup):
    """`COMMANDS`, before those that cost nothing to import."""

    def __init__(self, *, commands: Any = None, **settings: Any):
        deferred = {name: DeferredCommand(name, f"{__package__}.{place}") for name, place in COMMANDS.items()}
        super().__init__(commands={**deferred, **(commands or {})}, **settings)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"latentplan {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="latentplan",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(no_args_is_help=True, help="Check data files and make data.")
make = typer.Typer(no_args_is_help=True, help="Make data.")
app.add_typer(data, name="data")
data.add_typer(make, name="make")
data.command("check")(data_check.check)
make.command("minigsm")(data_make.minigsm)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and end.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Train, evaluate, understand and serve language models that reason in continuous latent tokens."""
    # The command has its arguments by now; what reads them here is what records them, trackers included.
    sys.argv[1:] = masked_arguments(sys.argv[1:])


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
