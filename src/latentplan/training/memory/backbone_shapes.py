"""The shapes of well-known backbones, so that their memory can be computed where the hub is out of reach.

Each is the part of the model's public config.json on the Hugging Face hub that decides the sizes.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latentplan.modeling.folders.adapter_folders import has_adapter

_LLAMA_3 = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
}
SHAPES: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-1B-Instruct": {
        **_LLAMA_3,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        **_LLAMA_3,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
    "openai-community/gpt2": {"model_type": "gpt2"},  # the defaults of GPT2Config are its sizes
}
"""Sizes by hub id."""


def backbone_shape(name_or_path: str) -> PreTrainedConfig:
    """The configuration of a backbone: from the table above, else from its folder or from the hub.

    Raises:
        OSError: it is in none of them.
        ValueError: it is an adapter alone.
    """
    if name_or_path in SHAPES:
        return shape_from(SHAPES[name_or_path])
    has_adapter(name_or_path)
    return AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)


def shape_from(settings: dict[str, Any]) -> PreTrainedConfig:
    """The configuration that a mapping with a `model_type` describes (by default a Llama)."""
    values = dict(settings)
    return CONFIG_MAPPING[values.pop("model_type", "llama")](**values)
