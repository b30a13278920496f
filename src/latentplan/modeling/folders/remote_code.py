"""Code that a checkpoint names in addition to heads and methods: kernels of the hub, tokenizers, adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedConfig

from latentplan.modeling.folders.damage import read_json

TOKENIZER_CONFIG = "tokenizer_config.json"
ADAPTER_CONFIG = "adapter_config.json"


def hub_kernels(config: PreTrainedConfig) -> list[str]:
    """Lists the attention implementations in a configuration that transformers would download and run."""
    chosen = {each._attn_implementation for each in with_parts(config)}
    return sorted(name for name in chosen if isinstance(name, str) and "/" in name)


def with_parts(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """Yields a configuration and all configurations inside it."""
    yield config
    for value in vars(config).values():  # not `sub_configs`, which a file could empty
        items = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list | tuple)
            else [value]
        )
        for part in items:
            if isinstance(part, PreTrainedConfig):
                yield from with_parts(part)


def adapter_code(folder: Path) -> str | None:
    """Returns the package that a PEFT adapter in a folder makes peft import; None without one.

    Raises:
        DamagedModelError: its configuration is damaged.
    """
    if not (folder / ADAPTER_CONFIG).exists():
        return None
    settings = read_json(folder / ADAPTER_CONFIG)
    return f"the adapter's {settings.get('megatron_core')!r}" if settings.get("megatron_config") else None


def tokenizer_code(folder: Path) -> str | None:
    """Returns the class outside transformers that a saved tokenizer names (its `auto_map`), or None.

    Raises:
        DamagedModelError: its configuration is missing or damaged.
    """
    named = read_json(folder / TOKENIZER_CONFIG).get("auto_map")
    return f"the tokenizer {json.dumps(named)}" if named else None
