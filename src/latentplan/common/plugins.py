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
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import Any, TypeVar, get_args, get_type_hints

logger = logging.getLogger(__name__)
_named_by_the_user: set[str] = set()
_Settings = TypeVar("_Settings")


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


def settings_from(kind: type[_Settings], values: Mapping[str, Any] | None, owner: str) -> _Settings:
    """Returns the settings of a plug-in, an instance of its dataclass, from a mapping.

    Args:
        kind: the dataclass.
        values: what is set; the others keep their defaults.
        owner: the plug-in, in words for the message, such as `reward valid_chains`.

    Raises:
        ValueError: there is no such setting, or its value is of another type; says what is allowed.
    """
    hints = get_type_hints(kind)
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    read = {}
    for name, value in (values or {}).items():
        if name not in known:
            allowed = f"its settings are {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{owner} has no setting {name!r}: {allowed}")
        read[name] = _of_type(hints[name], value, f"{name} of {owner}")
    return kind(**read)


def _of_type(hint: Any, value: Any, what: str) -> Any:
    """Returns the value, an integer as a float where that is wanted. Raises ValueError for another type."""
    choices = [getattr(each, "__origin__", each) for each in (get_args(hint) or (hint,))]
    if hasattr(hint, "__origin__") and hint.__origin__ in (list, dict, tuple):
        choices = [hint.__origin__]
    if float in choices and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = any(isinstance(value, each) for each in choices if isinstance(each, type))
    if not fits or (isinstance(value, bool) and bool not in choices):
        names = " or ".join("null" if each is type(None) else each.__name__ for each in choices)
        raise ValueError(f"{what} must be {names}, got {value!r}")
    return value
