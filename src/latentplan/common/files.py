"""Writing files whole."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(file: Path, text: str) -> Path:
    """Writes a file through a temporary name, so that no reader or crash sees half of it, and returns it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(file)
