"""The requirements of a backbone, and access to its parts in every family of language models.

`check_config` checks a configuration before weights are downloaded, `modeling.backbone_check` the loaded
model. A backbone takes embeddings as inputs, attends to the past in every layer, and has a key-value cache:
latents are columns of that cache, and the samples of a question share it.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from latentplan.modeling.folders.remote_code import with_parts

_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "attention", "moe", "mlp"}
_RECURRENT = {"linear_attention", "conv", "mamba", "mamba2", "recurrent", "hybrid", "hybrid_sliding"}
_REASONS = {
    "ctrl": "it takes padding for tokens",
    "cpmant": "it takes no inputs_embeds",
    "gpt_neo": "its local attention counts padding as tokens",
    "modernbert-decoder": "its output is more than one linear map",
    "mpt": "its position bias counts masked columns as distance",
    "minimax": "some of its layers keep a recurrent state, which masked slots would change",
}
_ADVICE = (
    "choose a decoder-only transformer with a key-value cache, such as Llama, Qwen2, Qwen3, Mistral, Gemma, "
    "Phi-3, OLMo 2 or GPT-2 (docs/backbones.md lists what is tested)"
)


class UnsupportedBackboneError(ValueError):
    """A language model cannot be a backbone; the message names it and says why."""

    def __init__(self, config: PreTrainedConfig, reason: str):
        name = config.name_or_path or "this model"
        super().__init__(f"{name} ({config.model_type}) cannot be a backbone: {reason}; {_ADVICE}")


OUR_MODEL_TYPES = ("latent_reasoner", "latent_step_decoder")


def check_config(config: PreTrainedConfig) -> None:
    """Refuses a language model that cannot be a backbone, by its configuration alone.

    Raises:
        UnsupportedBackboneError: encoder-decoders, models with a recurrent state, without a key-value cache,
            without `inputs_embeds`, or that look ahead.
    """
    reason = _refusal(config)
    if reason is not None:
        raise UnsupportedBackboneError(config, reason)


def _refusal(config: PreTrainedConfig) -> str | None:
    # Inside another model it would count as the user's own, with all the code that it names.
    if any(each.model_type in OUR_MODEL_TYPES for each in with_parts(config)):
        return "a latentplan model stands inside of it, where only a language model may"
    if config.is_encoder_decoder:
        return "it is an encoder-decoder, and latents continue one sequence"
    if config.model_type in _REASONS:
        return _REASONS[config.model_type]
    if getattr(config, "auto_map", None) and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return (
            "its code is not part of transformers, so what is trained could not be loaded again (register "
            "its classes with AutoConfig and AutoModelForCausalLM first)"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "transformers has no causal language model of this architecture that reads text alone"
    encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if encoder or not getattr(config, "is_causal", True):
        return "it reads in both directions, and a backbone sees only the past"
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ())
    recurrent = getattr(model_class, "_is_stateful", False) or kinds & _RECURRENT
    if recurrent:
        return "some of its layers keep a recurrent state, which masked slots would change"
    if not kinds <= _ATTENTION:
        return f"it has layers of the kind {', '.join(sorted(kinds - _ATTENTION))}, which are not known here"
    takes = _arguments(model_class)
    if "inputs_embeds" not in takes:
        return "it takes no inputs_embeds, and latents are embeddings"
    if "past_key_values" not in takes:
        return "it has no key-value cache"
    return None


def text_model(backbone: PreTrainedModel) -> PreTrainedModel:
    """Returns the causal language model inside a multimodal one; `backbone` itself where it is text-only.

    Raises:
        UnsupportedBackboneError: its text model cannot be taken out.
    """
    config = backbone.config.get_text_config(decoder=True)
    if config is backbone.config:
        return backbone
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedBackboneError(backbone.config, "its text model does not stand on its own")
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(config)
    decoder = backbone.get_decoder()
    if type(decoder) is not type(body(text)):
        raise UnsupportedBackboneError(backbone.config, "its text model does not stand on its own")
    setattr(text, next(name for name, child in text.named_children() if child is body(text)), decoder)
    text.set_output_embeddings(backbone.get_output_embeddings())
    text.config.name_or_path = backbone.config.name_or_path
    return text.train(backbone.training)


def body(backbone: PreTrainedModel) -> nn.Module:
    """Returns the layers below the output embeddings, which compute the last hidden states."""
    base = backbone.base_model
    return base if base is not backbone else cast(nn.Module, backbone.model)  # Llama 4


def takes_positions(model: nn.Module) -> bool:
    """Says whether a model takes `position_ids`."""
    return "position_ids" in _arguments(cast(Any, type(model)))


@cache
def _arguments(model_class: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


def finish_logits(config: PreTrainedConfig, logits: torch.Tensor) -> torch.Tensor:
    """Applies a family's scaling and capping to the output layer's logits `[..., vocabulary]`, in float32.

    Cohere multiplies, Granite divides (HyperCLOVA X multiplies), Gemma 2 and others cap. `backbone_check`
    finds families that do something else.
    """
    text, logits = config.get_text_config(decoder=True), logits.float()
    # A multiplication by 1 would copy all logits.
    if scale := getattr(text, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(text, "logits_scaling", None):
        logits = logits * scaling if text.model_type == "hyperclovax" else logits / scaling
    cap = getattr(text, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
