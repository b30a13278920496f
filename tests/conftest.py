"""Tiny random systems of every method over the clock world: width 32, two layers, at most 3 latent steps."""

from __future__ import annotations

import copy
import os
from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latentplan.encoding.tokenizers import (
    END_LATENT,
    START_LATENT,
    add_special_tokens,
    problem_texts,
    train_word_level,
)
from latentplan.methods.base import get_method
from latentplan.modeling.configuration import LatentReasonerConfig, StepDecoderConfig
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.problem import Problem
from latentplan.training.trainable_model import LatentModelForTraining, make_processor

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.2,
    "max_position_embeddings": 256,
}
GPT2_SIZES = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 256,
    "initializer_range": 0.2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
# model_type: its settings beside SIZES. Without dropout, so that outputs can be compared.
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": None},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "phi": {"hidden_dropout": 0.0},
    "phi3": {"pad_token_id": 0},
    "gpt2": {},
    "gptj": {"rotary_dim": 8},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
    "bloom": {"hidden_dropout": 0.0, "attention_dropout": 0.0},
    "falcon": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "starcoder2": {"residual_dropout": 0.0, "embedding_dropout": 0.0},
    "stablelm": {},
    "smollm3": {"pad_token_id": 0},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "head_dim": 16},
    "glm4": {"head_dim": 16, "pad_token_id": 0},
    "ernie4_5": {"head_dim": 16},
    "mixtral": {"num_local_experts": 4, **MOE},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 32, **MOE},
    "qwen3_moe": {"num_experts": 4, "head_dim": 16, **MOE},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 16, **MOE},
    "llama4_text": {"num_local_experts": 2, "head_dim": 16, "intermediate_size_mlp": 64, **MOE},
    "deepseek_v3": {
        "num_key_value_heads": 2,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
        **MOE,
    },
}
MIXED = ["sliding_attention", "full_attention"]
# What makes the families with a sliding window use one of `window` positions.
WINDOWS = {
    "mistral": lambda window: {"sliding_window": window},
    "phi3": lambda window: {"sliding_window": window},
    "starcoder2": lambda window: {"sliding_window": window},
    "mixtral": lambda window: {"sliding_window": window},
    "qwen2": lambda window: {"sliding_window": window, "use_sliding_window": True, "layer_types": MIXED},
    "qwen3": lambda window: {"sliding_window": window, "use_sliding_window": True, "layer_types": MIXED},
    "gemma2": lambda window: {"sliding_window": window, "layer_types": MIXED},
    "gemma3_text": lambda window: {"sliding_window": window, "layer_types": MIXED},
    "cohere2": lambda window: {"sliding_window": window, "layer_types": MIXED},
    "olmo3": lambda window: {"sliding_window": window, "layer_types": MIXED},
    "gpt_oss": lambda window: {"sliding_window": window, "layer_types": MIXED},
    "llama4_text": lambda window: {"attention_chunk_size": window},
}


def family_config(family: str, **overrides):
    """A tiny configuration of a family."""
    sizes = GPT2_SIZES if family in ("gpt2", "gptj") else SIZES
    if family == "bloom":
        sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    return CONFIG_MAPPING[family](**{**sizes, **FAMILIES[family], **overrides})


@pytest.fixture(scope="session", params=FAMILIES)
def each_family(request) -> str:
    """Every family that docs/backbones.md lists."""
    return request.param


@pytest.fixture(scope="session", params=WINDOWS)
def windowed_family(request):
    """Every family with a sliding (or chunked) window, and settings that make it 5 positions wide."""
    return request.param, WINDOWS[request.param](5)


@pytest.fixture(scope="session")
def tested_families() -> tuple[list[str], list[str]]:
    """All of them, and those with a window."""
    return list(FAMILIES), list(WINDOWS)


@pytest.fixture(scope="session")
def clock_problems() -> list[Problem]:
    """300 problems of 1 to 4 steps."""
    return list(generate(PRESETS["clock"], split="train", count=300, seed=0))


@pytest.fixture(scope="session")
def mixed_problems(clock_problems) -> list[Problem]:
    """Six problems of different lengths: 1, 4, 2, 3, 1 and 4 steps, in this order."""
    chosen: list[Problem] = []
    for steps in (1, 4, 2, 3, 1, 4):
        chosen.append(
            next(each for each in clock_problems if len(each.steps) == steps and each not in chosen)
        )
    return chosen


@pytest.fixture(scope="session")
def clock_tokenizer(clock_problems):
    """A word-level tokenizer of the clock world, with the latent tokens."""
    tokenizer = train_word_level(problem_texts(clock_problems))
    add_special_tokens(tokenizer)
    return tokenizer


@pytest.fixture(scope="session")
def make_backbone(clock_tokenizer):
    """Builds a random causal language model of a family."""

    def build(family: str = "llama", seed: int = 0, **overrides):
        torch.manual_seed(seed)
        settings = {
            "vocab_size": len(clock_tokenizer),
            "bos_token_id": None,
            "pad_token_id": clock_tokenizer.pad_token_id,
            "eos_token_id": clock_tokenizer.eos_token_id,
        }
        return AutoModelForCausalLM.from_config(family_config(family, **{**settings, **overrides}))

    return build


@pytest.fixture(scope="session")
def make_system(make_backbone, clock_tokenizer):
    """Builds a random system of a method; keywords override fields of its configuration.

    `objectives` and `family` are as they say; `backbone` overrides fields of the backbone's configuration.
    """

    def build(
        method_name: str,
        *,
        family: str = "llama",
        seed: int = 0,
        objectives: dict[str, float] | None = None,
        backbone: dict | None = None,
        **overrides,
    ) -> LatentModelForTraining:
        method = get_method(method_name)
        model = make_backbone(family, seed, **(backbone or {}))
        special = {
            "pad_token_id": clock_tokenizer.pad_token_id,
            "eos_token_id": clock_tokenizer.eos_token_id,
        }
        settings = {
            "latent_head": method.latent_head,
            "stop_head": method.stop_head,
            "thinking": method.thinking,
            "max_latent_steps": 3,
            "initial_log_variance": -1.0,
            "method_settings": asdict(method.settings),
            "tokens_per_latent": method.tokens_per_latent,
        }
        if method.tokens_per_latent is not None:
            settings |= {"latents_per_step": 1, "max_latent_steps": 12, "initial_latent_scale": 0.2}
        config = LatentReasonerConfig(
            backbone_config=model.config,
            method=method_name,
            written_steps=method.written_steps,
            start_latent_token_id=clock_tokenizer.convert_tokens_to_ids(START_LATENT),
            end_latent_token_id=clock_tokenizer.convert_tokens_to_ids(END_LATENT),
            **special,
            **{**settings, **overrides},
        )
        decoder = None
        if "step_decoder" in (method.objectives if objectives is None else objectives):
            language_model = copy.deepcopy(model)
            decoder = StepDecoder(
                StepDecoderConfig(
                    backbone_config=language_model.config,
                    latents_per_step=config.latents_per_step,
                    **special,
                ),
                language_model,
            )
        return LatentModelForTraining(LatentReasoner(config, model), decoder, objectives)

    return build


@pytest.fixture(scope="session")
def make_batch(clock_tokenizer):
    """Lays problems out as a system's method does at a stage (the last by default) and collates them."""

    def build(system: LatentModelForTraining, problems, stage: int | None = None, keys=None):
        processor = make_processor(clock_tokenizer, system.reasoner)
        config = system.reasoner.config
        stage = config.max_latent_steps if stage is None else stage
        encoded = [processor(problem) for problem in problems]
        keys = torch.tensor(list(range(len(encoded)) if keys is None else keys))
        return system.method.batch(processor, encoded, [stage] * len(encoded), config, keys)

    return build


@pytest.fixture(scope="session")
def as_loaded(clock_tokenizer):
    """A system as `load_model` would give it."""

    def build(system: LatentModelForTraining) -> LoadedModel:
        decoder = system.step_decoder.eval() if system.step_decoder else None
        processor = make_processor(clock_tokenizer, system.reasoner)
        return LoadedModel(system.reasoner.eval(), decoder, clock_tokenizer, processor)

    return build


@pytest.fixture(scope="session")
def overfit(make_batch):
    """Trains a system on one batch until its loss is below a bound; returns the last loss."""

    def train(
        system: LatentModelForTraining, problems, *, bound: float, steps: int, rate: float = 0.01, stage=None
    ) -> float:
        optimizer = torch.optim.Adam(system.parameters(), lr=rate)
        loss = float("inf")
        for step in range(steps):
            keys = range(step * len(problems), (step + 1) * len(problems))
            value = system(**make_batch(system, problems, stage, keys))["loss"]
            loss = value.item()
            if loss < bound:
                break
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
            optimizer.step()
        return loss

    return train
