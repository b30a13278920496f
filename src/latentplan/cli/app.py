"""`latentplan`: the command line.

A command's module is imported when the command is called (`DeferredCommand`), so that help and mistakes are
answered at once, without PyTorch.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from latentplan import __version__
from latentplan.cli import data as data_check
from latentplan.cli import data as data_make
from latentplan.common.secrets import masked_arguments


class DeferredCommand(TyperCommand):
    """Stands for a function of a module that has not been imported.

    Args:
        name: of the command and of the function.
        module: where the function is. If it has a `PASS_THROUGH`, that is the command's `context_settings`.
    """

    def __init__(self, name: str, module: str):
        super().__init__(name, callback=None, help=_docstring(module, name))
        self.module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Returns the context of the real command, which takes over from here."""
        return self._real().make_context(info_name, args, parent, **extra)

    def _real(self) -> Any:
        module = importlib.import_module(self.module)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(self.name, context_settings=getattr(module, "PASS_THROUGH", None))(
            getattr(module, str(self.name))
        )
        return typer.main.get_command(alone)


def _docstring(module: str, function: str) -> str:
    """Returns a function's docstring, read from the source. Raises ValueError if there is no such
    function.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {module}")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return inspect.cleandoc(ast.get_docstring(node) or "")
    raise ValueError(f"{module} has no function {function}")


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
        deferred = {
            name: DeferredCommand(name, f"{__package__}.{module}") for name, module in COMMANDS.items()
        }
        super().__init__(commands={**deferred, **(commands or {})}, **settings)


def _show_version(requested: bool) -> None:
    if requested:
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
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
