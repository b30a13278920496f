"""What all results have in common: a JSON file with a format version, written in one move, read strictly."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from latentplan.common.files import write_atomically


class SavedJson:
    """A dataclass with a field `format_version`, whose default is the version that can be read.

    Attributes:
        called: what messages call it, with its article.
    """

    called: ClassVar[str]
    format_version: int

    @classmethod
    def read_parts(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a row, with dataclasses in the place of dictionaries."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings; the format version comes first."""
        return {"format_version": self.format_version, **asdict(cast(Any, self))}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: the row is something else, or of another format version; the message says which.
        """
        known = {item.name: item for item in fields(cast(Any, cls))}
        version, readable = row.get("format_version"), known["format_version"].default
        if version != readable:
            raise ValueError(f"format_version is {version!r}; this version of latentplan reads {readable}")
        unknown = set(row) - set(known)
        if unknown:
            raise ValueError(f"{cls.called} has no {', '.join(sorted(unknown))}")
        try:
            return cls(**cls.read_parts(row))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not {cls.called}: {error}") from error

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Writes the JSON file in one move, so that no reader ever sees half of it; makes its folder."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        return write_atomically(Path(file), text + "\n")

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Self:
        """What is in a file that `save` wrote. Raises ValueError, naming the file, if it holds none."""
        try:
            return cls.from_json(json.loads(Path(file).read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{os.fspath(file)}: {error}") from error
