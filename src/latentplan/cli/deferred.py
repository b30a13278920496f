"""`DeferredCommand`: a command that imports what it needs when it is called, and is known by name before."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand


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
        """The context of the real command, which takes over from here."""
        return self._real().make_context(info_name, args, parent, **extra)

    def _real(self) -> Any:
        module = importlib.import_module(self.module)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(self.name, context_settings=getattr(module, "PASS_THROUGH", None))(
            getattr(module, str(self.name))
        )
        return typer.main.get_command(alone)


def _docstring(module: str, function: str) -> str:
    """A function's docstring, read from the source. Raises ValueError if there is no such function."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {module}")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return inspect.cleandoc(ast.get_docstring(node) or "")
    raise ValueError(f"{module} has no function {function}")
