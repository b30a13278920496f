"""What two revisions left in equal folders, compared value by value; the tables of what may differ.

`same_results.py` runs the same commands with both revisions. Here the files of each run are read into a flat
mapping, from where a value stands to the value, and two such mappings are compared. Nothing of latentplan is
imported, so that this survives every move and renaming; a new name that users see is a line in `RENAMED`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

# What the new revision calls otherwise: old name -> new name. Tensors and files: parts of their names.
RENAMED: dict[str, dict[str, str]] = {
    "settings": {"estimator": "latent_gradient"},  # of the command line, without the dashes
    "keys": {},  # of metrics, evaluations, run.json and summary.json
    "values": {},  # texts that are names, such as those of warnings
    "tensors": {},
    "files": {},
}
# Keys that are left out with all that is below them, by files in a run's folder.
IGNORED: dict[str, frozenset[str]] = {
    "*": frozenset({"created", "device", "git", "machine", "message", "seconds", "versions"}),
    "run.json": frozenset({"command", "finished", "pinned"}),  # the end's date; hashes of whole files
    "evaluation/*.json": frozenset({"warnings"}),  # sentences, as are those below
    "diagnosis/*.json": frozenset({"name", "threshold", "unit", "verdict", "warnings"}),
}
# Where the files of a kind lie in a run's folder.
KINDS: dict[str, tuple[str, ...]] = {
    "weights": ("model/**/*.safetensors",),
    "training": ("metrics.jsonl", "run.json"),
    "samples": ("samples.jsonl",),
    "evaluation": ("evaluation/*.json", "evaluation/*.jsonl", "diagnosis/*.json"),
    "summary": ("summary.json",),
}
MOST_EXAMPLES = 5
MISSING = "(missing)"

Values = dict[str, Any]
Tables = Mapping[str, Mapping[str, str]]


@dataclass
class Comparison:
    """How many values were compared, how many differ, and the largest difference.

    Attributes:
        compared: values, or tensors; those that one side lacks are counted.
        elements: numbers in them, a tensor's each.
        different: of `compared`.
        not_numbers: of `different`, those whose difference is no number: texts, other shapes, missing values.
        largest: of the others, as `difference` measures it.
        where: the place of the largest; of the first where none is a number.
        examples: the first that differ: [where, old, new]; of a tensor the element that differs most.
    """

    compared: int = 0
    elements: int = 0
    different: int = 0
    not_numbers: int = 0
    largest: float = 0.0
    where: str | None = None
    examples: list[list[str]] = field(default_factory=list)

    def note(self, where: str, old: Any, new: Any, size: float) -> None:
        """Counts one difference."""
        self.different += 1
        self.not_numbers += math.isinf(size)
        if self.where is None or (math.isfinite(size) and size > self.largest):
            self.where = where
        if math.isfinite(size):
            self.largest = max(size, self.largest)
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append([where, _shown(old), _shown(new)])


def compare(old: Values, new: Values, tolerance: float = 0.0, allow_added: bool = False) -> Comparison:
    """Compares two mappings from places to values.

    Args:
        tolerance: a `difference` up to this is none.
        allow_added: what only `new` has is no difference.
    """
    found = Comparison()
    for where in old if allow_added else {**old, **new}:
        before, after = old.get(where, MISSING), new.get(where, MISSING)
        found.compared += 1
        found.elements += before.size if isinstance(before, np.ndarray) else 1
        size = difference(before, after)
        if size > tolerance:
            found.note(*_element(where, before, after), size)
    return found


def difference(old: Any, new: Any) -> float:
    """How far two values are apart: 0 where they are equal, infinite where no number says so.

    Two numbers are apart by their difference, divided by the larger of them where that is above 1; two
    tensors by the largest of their elements.
    """
    if not (_is_numeric(old) and _is_numeric(new)):
        return 0.0 if type(old) is type(new) and np.array_equal(old, new) else math.inf
    return float(_apart(old, new).max(initial=0.0)) if _form(old) == _form(new) else math.inf


def _apart(old: Any, new: Any) -> np.ndarray:
    """The difference of each element."""
    before, after = np.atleast_1d(old).astype(np.float64), np.atleast_1d(new).astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(before - after) / np.maximum(1.0, np.maximum(np.abs(before), np.abs(after)))
    apart[~np.isfinite(apart)] = math.inf
    apart[(before == after) | (np.isnan(before) & np.isnan(after))] = 0.0
    return apart


def _element(where: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """Of two tensors of one form, the place and values of the element that differs most."""
    if not isinstance(old, np.ndarray) or _form(old) != _form(new):
        return where, old, new
    index = np.unravel_index(_apart(old, new).argmax(), np.atleast_1d(old).shape)
    before, after = np.atleast_1d(old)[index].item(), np.atleast_1d(new)[index].item()
    return f"{where}[{', '.join(map(str, index))}]", before, after


def read_run(folder: Path, renamed: Tables | None = None) -> dict[str, Values]:
    """Reads what a run left, by kind; kinds that it has nothing of are absent.

    Args:
        folder: the run.
        renamed: tables as `RENAMED`, for the old revision; names stay where absent.
    """
    tables = renamed or {}
    kinds = {}
    for kind, patterns in KINDS.items():
        files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
        values: Values = {}
        for file in files:
            name = file.relative_to(folder).as_posix()
            shown = _replaced(name, tables.get("files", {}))
            values.update((f"{shown}: {where}", value) for where, value in read_file(file, name, tables))
        if files:
            kinds[kind] = values
    return kinds


def read_file(file: Path, name: str, renamed: Tables | None = None) -> Iterator[tuple[str, Any]]:
    """Yields the places and values of a file of tensors, JSON or JSON lines, without what is ignored.

    Args:
        file: of which the suffix says what it holds.
        name: its path in the run's folder, by which `IGNORED` knows it.
        renamed: as in `read_run`.
    """
    tables = renamed or {}
    if file.suffix == ".safetensors":
        for tensor, values in sorted(load_file(file).items()):
            yield _replaced(tensor, tables.get("tensors", {})), values
        return
    ignored = {key for pattern, keys in IGNORED.items() if fnmatch(name, pattern) for key in keys}
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            yield from _flat(json.loads(line), f"line {number}", ignored, tables)
    else:
        yield from _flat(json.loads(text), "", ignored, tables)


def _flat(value: Any, where: str, ignored: set[str], tables: Tables) -> Iterator[tuple[str, Any]]:
    """The leaves of nested JSON; an empty list or dictionary is one, too."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            if key not in ignored:
                name = tables.get("keys", {}).get(key, key)
                yield from _flat(below, f"{where} > {name}" if where else name, ignored, tables)
    elif isinstance(value, list) and value:
        for index, below in enumerate(value):
            yield from _flat(below, f"{where}[{index}]", ignored, tables)
    else:
        yield where, tables.get("values", {}).get(value, value) if isinstance(value, str) else value


def _replaced(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def _form(value: Any) -> Any:
    """Shape and dtype of a tensor; nothing of a number, of which JSON has one kind."""
    return (value.shape, value.dtype) if isinstance(value, np.ndarray) else None


def _is_numeric(value: Any) -> bool:
    """Truth values are none: `true` for 1 is a difference."""
    return isinstance(value, int | float | np.ndarray) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
