"""The methods by name: those in this folder, one file each, and the user's own as `package.module:Class`."""

from __future__ import annotations

from functools import cache

from latentplan.common.plugins import CodeSource, import_named, modules_of, names_own_code
from latentplan.methods.base import Method


def _methods_of(module: object) -> list[type[Method]]:
    return [
        found
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, Method)
        and "name" in vars(found)
        and found.__module__ == module.__name__  # type: ignore[attr-defined]
    ]


@cache
def methods() -> dict[str, Method]:
    """Returns the methods of this folder by name."""
    found = [each for module in modules_of("latentplan.methods") for each in _methods_of(module)]
    return {method.name: method() for method in found}


def get_method(name: str, source: CodeSource | None = None) -> Method:
    """Returns the method called `name`: one of `methods`, or `package.module:Class`.

    Args:
        name: of the method.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such name, module or class; the message lists what there is.
    """
    if name in methods():
        return methods()[name]
    found = import_named(name, "method", source) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(
            f"method must be one of {sorted(methods())}, or a subclass of Method as 'package.module:Class', "
            f"got {name!r}"
        )
    return found()
