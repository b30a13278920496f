"""Tiny models of every method over the clock world, random or taught a few problems by heart."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

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
from latentplan.training.trainable_model import LatentModelForTraining, make_processor

MAX_LATENT_STEPS = 3


@pytest.fixture(scope="session")
def problems():
    return list(generate(PRESETS["clock"], split="test", count=24, seed=0))


@pytest.fixture(scope="session")
def tiny_model(problems):
    """Builds a random model of a method, with width 16 and at most 3 latent steps of 2 tokens."""
    tokenizer = train_word_level(problem_texts(problems))
    add_special_tokens(tokenizer)

    def build(method_name: str, seed: int = 0) -> LoadedModel:
        torch.manual_seed(seed)
        method = get_method(method_name)
        special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        backbone = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                bos_token_id=None,
                **special,
            )
        )
        config = LatentReasonerConfig(
            backbone_config=backbone.config,
            method=method.name,
            latent_head=method.latent_head,
            stop_head=method.stop_head,
            written_steps=method.written_steps,
            tokens_per_latent=method.tokens_per_latent,
            max_latent_steps=MAX_LATENT_STEPS,
            start_latent_token_id=tokenizer.convert_tokens_to_ids(START_LATENT),
            end_latent_token_id=tokenizer.convert_tokens_to_ids(END_LATENT),
            **special,
        )
        decoder = None
        if "step_decoder" in method.objectives:
            language_model = copy.deepcopy(backbone)
            decoder = StepDecoder(
                StepDecoderConfig(backbone_config=language_model.config, **special), language_model
            ).eval()
        reasoner = LatentReasoner(config, backbone).eval()
        return LoadedModel(reasoner, decoder, tokenizer, make_processor(tokenizer, reasoner))

    return build


@pytest.fixture(scope="session")
def taught_model(tiny_model, problems):
    """An ATP-Latent model that knows the first four problems by heart."""
    model = tiny_model("atp_latent")
    system = LatentModelForTraining(model.reasoner, model.step_decoder).train()
    encoded = [model.processor(problem) for problem in problems[:4]]
    stages = [MAX_LATENT_STEPS] * len(encoded)
    optimizer = torch.optim.Adam(system.parameters(), lr=0.01)
    for step in range(250):
        keys = torch.arange(step * len(encoded), (step + 1) * len(encoded))
        batch = system.method.batch(model.processor, encoded, stages, model.reasoner.config, keys)
        optimizer.zero_grad()
        system(**batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
    system.eval()
    return model
