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
    """Has whatever fails inside be a `DamagedModelError` of `file`.

    What already says what is wrong passes: a damage told more precisely, code that is not trusted, a package
    that is missing, memory that is full.

    Args:
        file: what is read inside.
        what: what could not be done with it, in words.
        advice: what to do.
    """
    try:
        yield
    except (DamagedModelError, UntrustedCodeError, ImportError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except InvalidConfigError as error:
        raise DamagedModelError(file, error, advice) from error
    except BaseException as error:  # what the Rust of `tokenizers` panics with is no Exception
        text = " ".join(str(error).split())[:300]
        raise DamagedModelError(file, f"{what} ({type(error).__name__}: {text})", advice) from error


def read_json(file: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds. Raises DamagedModelError where there is none."""
    return _read(file, "JSON", json.loads)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises DamagedModelError where there is none."""
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
    """Refuses folders in the place of files, pipes, devices and links that lead nowhere, before reading.

    Args:
        folder: of a model or of its step decoder.

    Raises:
        DamagedModelError: something with the name of a file is none.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix and not path.is_file() and (path.suffix in _SUFFIXES or not path.is_dir()):
            raise DamagedModelError(path, "it is no regular file")


_SUFFIXES = {".json", ".safetensors", ".jinja", ".model", ".txt", ".py"}
