"""Data sets of the Hugging Face hub, or a local folder that is laid out like one, through `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from latentplan.problems.problem import DataError

Rows = Iterable[Mapping[str, Any]]
INSTALL = "pip install -c constraints.txt -e '.[datasets]'"


def hub_rows(
    name: str, config: str | None, split: str, *, streaming: bool = False, remedy: str = ""
) -> tuple[Rows, str | None]:
    """The rows of a split, and a fingerprint of them where one is known before they are read.

    Args:
        name: the id on the hub, `owner/name`, or a local folder.
        config: its configuration; None takes its default.
        split: as the hub calls it.
        streaming: read while downloading, instead of downloading everything first.
        remedy: what else to do where it cannot be loaded; added to the error.

    Raises:
        DataError: the package is missing, or the data set, its configuration or split cannot be had.
    """
    remedy = f", {remedy}" if remedy else ""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(f"reading {name} needs the datasets package: {INSTALL}{remedy}") from error
    options: dict[str, Any] = {"streaming": True} if streaming else {}
    try:
        rows = load_dataset(name, config, split=split, **options)
    except Exception as error:  # datasets passes on whatever its network stack raises
        raise _unavailable(name, error, remedy) from error
    known = _revision(name) if streaming else getattr(rows, "_fingerprint", None)
    return _guarded(rows, name, remedy), known


def _guarded(rows: Rows, name: str, remedy: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except Exception as error:  # a stream can break at any row
        raise _unavailable(name, error, remedy) from error


def _unavailable(name: str, error: Exception, remedy: str) -> DataError:
    return DataError(
        f"cannot load {name} from the hub ({type(error).__name__}: {error}); check its name, its split, its "
        f"configuration and the network{remedy}"
    )


def _revision(name: str) -> str | None:
    """The commit that the hub has now; None for a folder, or where the hub does not say."""
    if Path(name).exists():
        return None
    try:
        from huggingface_hub import dataset_info

        return dataset_info(name).sha
    except Exception:  # no network, no such set, or a folder: then its rows tell
        return None
