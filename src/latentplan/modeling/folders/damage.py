"""Damaged model folders and runs: one error names the file, says what is wrong with it and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from latentplan.common.plugins import UntrustedCodeError
from latentplan.modeling.folders.config_rules import InvalidConfigError

ADVICE = "copy or download the folder again, or train the model again"


class DamagedModelError(ValueError):
    """A file of a model folder or run is missing or damaged, or contradicts another.

    Args:
        file: the file, or the folder where it is the folder as a whole.
        reason: what is wrong, in words.
        advice: what to do.
    """

    def __init__(self, file: str | os.PathLike, reason: object, advice: str = ADVICE):
        super().__init__(f"{os.fspath(file)}: {reason}; {advice}")


@contextmanager
def blamed_on(file: str | os.PathLike, what: str, advice: str = ADVICE) -> Iterator[None]:
    """Turns errors within this context into a `DamagedModelError` of `file`.

    Errors that already say what is wrong pass unchanged: a more precise damage, code that is not trusted, a
        missing
    package, full memory.

    Args:
        file: that is read within the context.
        what: that could not be done with it, in words.
        advice: what to do.
    """
    try:
        yield
    except (DamagedModelError, UntrustedCodeError, ImportError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except InvalidConfigError as error:
        raise DamagedModelError(file, error, advice) from error
    except BaseException as error:  # a panic in the Rust code of `tokenizers` is no Exception
        text = " ".join(str(error).split())[:300]
        raise DamagedModelError(file, f"{what} ({type(error).__name__}: {text})", advice) from error


def read_json(file: Path) -> dict[str, Any]:
    """Returns the mapping in a JSON file. Raises DamagedModelError where there is none."""
    return _read(file, "JSON", json.loads)


def read_yaml(file: Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file. Raises DamagedModelError where there is none."""
    return _read(file, "YAML", yaml.safe_load)


def _read(file: Path, kind: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    if not file.is_file():
        there = "it is no regular file" if os.path.lexists(file) else "there is no such file"
        raise DamagedModelError(file, there)
    with blamed_on(file, f"it is not {kind}"):
        content = parse(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise DamagedModelError(file, f"it holds {type(content).__name__} instead of a mapping")
    return content


def check_regular(folder: Path) -> None:
    """Refuses folders instead of files, pipes, devices and broken links, before anything is read.

    Args:
        folder: of a model or of its step decoder.

    Raises:
        DamagedModelError: a path with the name of a file is no regular file.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix and not path.is_file() and (path.suffix in _SUFFIXES or not path.is_dir()):
            raise DamagedModelError(path, "it is no regular file")


_SUFFIXES = {".json", ".safetensors", ".jinja", ".model", ".txt", ".py"}
