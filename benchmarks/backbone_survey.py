"""Which causal language models of the installed transformers can be backbones, on tiny random models.

python benchmarks/backbone_survey.py

For every architecture: refused by its configuration, refused by the probe, passed, or not built, because its
configuration has to be of a size or a shape that is not known here. docs/backbones.md quotes the result.
"""

from __future__ import annotations

import inspect
import warnings
from collections import defaultdict

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from latentplan.modeling.backbone_check import probe
from latentplan.modeling.backbones import UnsupportedBackboneError, check_config

MOST_PARAMETERS = 30_000_000
# Of each size, the names that configurations have for something of that size.
SIZES = {
    99: "vocab_size",
    64: "intermediate_size ffn_dim n_inner d_ff decoder_ffn_dim intermediate_size_mlp "
    "max_position_embeddings n_positions",
    32: "hidden_size n_embd d_model word_embed_proj_dim moe_intermediate_size "
    "shared_expert_intermediate_size",
    16: "head_dim query_pre_attn_scalar",
    8: "kv_lora_rank q_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim rotary_dim",
    4: "n_head n_heads num_experts num_local_experts n_routed_experts",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_attention_heads attention_heads "
    "decoder_attention_heads num_key_value_heads num_experts_per_tok eos_token_id",
    1: "n_group topk_group first_k_dense_replace bos_token_id",
    0: "pad_token_id",
}
TINY = {name: size for size, names in SIZES.items() for name in names.split()} | {"initializer_range": 0.2}


def tiny_config(model_type: str):
    """The configuration of an architecture with every size that it knows set small."""
    config_class = CONFIG_MAPPING[model_type]
    known: set[str] = set()
    for base in config_class.__mro__:
        known |= set(getattr(base, "__annotations__", {})) | set(inspect.signature(base.__init__).parameters)
    return config_class(**{name: value for name, value in TINY.items() if name in known})


def outcome(model_type: str) -> tuple[str, str]:
    """What became of one architecture, and why."""
    try:
        config = tiny_config(model_type)
    except Exception:
        config = None
    try:
        check_config(config or CONFIG_MAPPING[model_type]())
    except UnsupportedBackboneError as error:
        return "refused by configuration", str(error).split(": ", 1)[1].split(";")[0]
    except Exception as error:
        return "not built", repr(error)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        if sum(weight.numel() for weight in model.parameters()) > MOST_PARAMETERS:
            return "not built", "too large"
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        return "not built", repr(error)
    try:
        probe(model)
    except UnsupportedBackboneError as error:
        return "refused by the probe", str(error).split(": ", 1)[1].split(";")[0]
    return "passed", ""


def main() -> None:
    """Surveys all architectures and prints them by outcome."""
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for model_type in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        what, why = outcome(model_type)
        found[what][model_type] = why
    print(f"transformers {transformers.__version__}, {len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)} architectures")
    for what, names in found.items():
        print(f"\n{what}: {len(names)}")
        for model_type, why in names.items():
            print(f"  {model_type}" + (f": {why[:120]}" if why else ""))


if __name__ == "__main__":
    main()
