"""Code that a name stands for, `package.module:name`, and who named it.

What the user names, in a recipe, a flag or their own Python, runs. What a checkpoint names runs only where
the user trusts the checkpoint: a downloaded folder is somebody else's text.
"""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)
_named_by_the_user: set[str] = set()


class UntrustedCodeError(ValueError):
    """A checkpoint names code to run, and the user has not said that it may."""


@dataclass(frozen=True)
class CodeSource:
    """The checkpoint that a name of code was read from.

    Attributes:
        folder: the folder or hub id of the checkpoint.
        trusted: whether the user lets its code run (`trust_remote_code`).
    """

    folder: str
    trusted: bool = False

    def allow(self, what: str) -> None:
        """Says that code of the checkpoint is about to run.

        Args:
            what: the code, in words.

        Raises:
            UntrustedCodeError: it may not.
        """
        if not self.trusted:
            raise UntrustedCodeError(
                f"{self.folder} names code that would run on this machine: {what}. It has not been run. If "
                "you trust whoever made this folder, set --trust_remote_code true (in Python, "
                "trust_remote_code=True)"
            )
        logger.warning("running code that %s names: %s", self.folder, what)


def import_named(name: str, kind: str, source: CodeSource | None) -> Any:
    """The object that `package.module:name` names, or None where the module has none of that name.

    Args:
        name: module and object, with a colon between them.
        kind: what it is to be, for the message: reward, method, ….
        source: the checkpoint that names it; None where the user does. There is no default, so that whoever
            asks has to know. What the user has named in this process is theirs, whichever checkpoint names it
            too.

    Raises:
        UntrustedCodeError: a checkpoint names it, which the user does not trust.
        ValueError: there is no such module.
    """
    if source is None:
        _named_by_the_user.add(name)
    elif name not in _named_by_the_user and not name.startswith("latentplan."):  # installed, and running
        source.allow(f"the {kind} {name!r}")
    module_name, _, attribute = name.partition(":")
    return getattr(_import(module_name, f"the {kind} {name!r}"), attribute, None)


def names_own_code(name: str) -> bool:
    """Whether a name has the form `package.module:name`."""
    module_name, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(map(str.isidentifier, module_name.split(".")))


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


def setting(default: Any, help: str) -> Any:
    """Returns a field of a dataclass; lists and mappings are copied for each instance."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})
