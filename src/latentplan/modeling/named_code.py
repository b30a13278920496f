"""What a checkpoint names to be run beside heads and methods: attention kernels of the hub, tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedConfig

TOKENIZER_CONFIG = "tokenizer_config.json"


def hub_kernels(config: PreTrainedConfig) -> list[str]:
    """The attention implementations in a configuration that transformers would fetch from the hub and run."""
    chosen = {each._attn_implementation for each in _with_parts(config)}
    return sorted(name for name in chosen if isinstance(name, str) and "/" in name)


def _with_parts(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    yield config
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            yield from _with_parts(part)


def tokenizer_code(folder: Path) -> str | None:
    """The class outside transformers that a saved tokenizer names (its `auto_map`), or None."""
    try:
        settings = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # whoever loads the tokenizer says what is wrong with it
    named = settings.get("auto_map") if isinstance(settings, dict) else None
    return f"the tokenizer {json.dumps(named)}" if named else None
