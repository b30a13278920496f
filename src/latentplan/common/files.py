"""Writing files whole, and reading mappings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml


def write_atomically(file: Path, text: str) -> Path:
    """Writes a file through a temporary name, so that no reader or crash sees half of it, and returns it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(file)


def read_mapping(text: str) -> dict[str, Any] | None:
    """A mapping written as YAML or JSON, `{text: 1.0, stop: 0.5}`; None if it is none."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return value if isinstance(value, dict) else None
