"""What a user names in their own code: `package.module:name`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from types import ModuleType
from typing import Any


def import_named(name: str, kind: str) -> Any:
    """The object that `package.module:name` names, or None where the module has none of that name.

    Args:
        name: module and object, with a colon between them.
        kind: what it is to be, for the message: reward, method, ….

    Raises:
        ValueError: there is no such module.
    """
    module_name, _, attribute = name.partition(":")
    return getattr(_import(module_name, f"the {kind} {name!r}"), attribute, None)


def names_own_code(name: str) -> bool:
    """Whether a name has the form `package.module:name`."""
    module_name, colon, attribute = name.partition(":")
    return bool(colon and module_name and attribute)


def _import(module_name: str, what: str) -> ModuleType:
    here = os.getcwd()  # not on the path of a command that was installed
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is found, but imports another that is not, has a mistake of its own to show.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"{what} cannot be loaded: there is no module {error.name!r} on the Python path; "
            "run from the folder that holds it, or install it"
        ) from error


def modules_of(package: str) -> list[ModuleType]:
    """Imports every module of a package, in the order of their names: what plugs in as a file of a folder."""
    folder = importlib.import_module(package).__path__
    return [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder)]
