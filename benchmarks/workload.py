"""What the speed benchmark runs on: random models of known shapes, word problems, and the clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from latentplan.encoding.processor import Batch
from latentplan.encoding.tokenizers import (
    END_LATENT,
    START_LATENT,
    add_special_tokens,
    problem_texts,
    train_byte_level_bpe,
    train_word_level,
)
from latentplan.methods.base import get_method
from latentplan.modeling.configuration import LatentReasonerConfig, StepDecoderConfig
from latentplan.modeling.efficiency import matmul as products
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.problem import Problem
from latentplan.training.memory.backbone_shapes import SHAPES, shape_from
from latentplan.training.trainable_model import LatentModelForTraining, make_processor


@dataclass(frozen=True)
class Shape:
    """A backbone and how long its texts are.

    Attributes:
        name: of the shape.
        backbone: settings of its configuration, with `model_type`.
        latents_per_step, max_latent_steps: c and K.
        answer_tokens: of an answer, the end included.
        cot_tokens: that a written chain of thought and its answer have.
        sft_batch: rows of a supervised step.
        preset: of minigsm, what the problems are.
        pieces: of the tokenizer trained on them; None makes it a word-level one.
    """

    name: str
    backbone: dict[str, Any] = field(hash=False)
    latents_per_step: int
    max_latent_steps: int
    answer_tokens: int
    cot_tokens: int
    sft_batch: int
    preset: str = "default"
    pieces: int | None = 4096


QUICKSTART = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
# 21.2 written tokens were measured in the quickstart (docs/results/quickstart.md); 25.0 for GPT-2 are
# Coconut's (arXiv:2412.06769, table 1), which are taken for Llama too.
BENCH_SHAPES = {
    "quickstart": Shape("quickstart", QUICKSTART, 1, 4, 3, 21, 64, "quickstart", None),
    "gpt2": Shape("gpt2", SHAPES["openai-community/gpt2"], 2, 3, 3, 25, 16),
    "llama-3.2-1b": Shape("llama-3.2-1b", SHAPES["meta-llama/Llama-3.2-1B-Instruct"], 2, 3, 3, 25, 32),
}


@dataclass
class Workload:
    """A random ATP-Latent system of a shape, with problems for it."""

    shape: Shape
    system: LatentModelForTraining
    loaded: LoadedModel
    problems: Sequence[Problem]

    @property
    def reasoner(self) -> LatentReasoner:
        """The policy."""
        return self.system.reasoner

    def batch(self, stage: int, rows: int) -> Batch:
        """A supervised batch of a stage of the curriculum on the model's device."""
        problems = self.problems[:rows]
        encoded = self.loaded.processor.encode_all(problems)
        config, method = self.reasoner.config, self.system.method
        batch = method.batch(
            self.loaded.processor, encoded, [stage] * rows, config, torch.arange(rows, dtype=torch.long)
        )
        return {name: value.to(self.reasoner.device) for name, value in batch.items()}


def make_workload(shape: Shape, device: torch.device, dtype: torch.dtype) -> Workload:
    """Builds the system; its stop head always goes on, and no token ends an answer, so that work is known."""
    problems = list(generate(PRESETS[shape.preset], split="train", count=2048, seed=0))
    texts = problem_texts(problems)
    tokenizer = train_word_level(texts) if shape.pieces is None else train_byte_level_bpe(texts, shape.pieces)
    add_special_tokens(tokenizer)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    with torch.device(device):
        backbone, decoder = (
            AutoModelForCausalLM.from_config(
                shape_from({**shape.backbone, **ids, "bos_token_id": None}), dtype=dtype
            )
            for _ in range(2)
        )
        method = get_method("atp_latent")
        config = LatentReasonerConfig(
            backbone_config=backbone.config,
            latents_per_step=shape.latents_per_step,
            max_latent_steps=shape.max_latent_steps,
            latent_head=method.latent_head,
            stop_head=method.stop_head,
            step_separator="",
            start_latent_token_id=tokenizer.convert_tokens_to_ids(START_LATENT),
            end_latent_token_id=tokenizer.convert_tokens_to_ids(END_LATENT),
            **ids,
        )
        reasoner = LatentReasoner(config, backbone).eval()
        step_decoder = StepDecoder(
            StepDecoderConfig(backbone_config=decoder.config, latents_per_step=shape.latents_per_step, **ids),
            decoder,
        ).eval()
    last = [layer for layer in reasoner.stop_head.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.bias.copy_(torch.tensor([100.0, -100.0]))
    system = LatentModelForTraining(reasoner, step_decoder)
    processor = make_processor(tokenizer, reasoner)
    reasoner.config.eos_token_id = step_decoder.config.eos_token_id = -1
    return Workload(shape, system, LoadedModel(reasoner, step_decoder, tokenizer, processor), problems)


def seconds(device: torch.device, *runs: Callable[[], Any], times: int = 3) -> list[float]:
    """The best of `times` runs of each, taken in turn after a first run that is not timed."""
    for run in runs:
        run()
    best = [float("inf")] * len(runs)
    gc.collect()
    for _ in range(times):
        for place, run in enumerate(runs):
            started = now(device)
            run()
            best[place] = min(best[place], now(device) - started)
    return best


@contextmanager
def as_transformers_has_it(model: nn.Module) -> Iterator[None]:
    """The model as transformers made it: its layers' own `forward`, PyTorch's choice of products."""
    ours = {layer: layer.__dict__.pop("forward") for layer in model.modules() if "forward" in layer.__dict__}
    choice = products._onednn_is_faster
    products._onednn_is_faster = lambda: False  # type: ignore[assignment]
    try:
        yield
    finally:
        products._onednn_is_faster = choice
        for layer, forward in ours.items():
            layer.forward = forward  # type: ignore[method-assign]


class Clock:
    """What seconds are: of the wall, or of this process where others use the machine too (on one thread)."""

    read: Callable[[], float] = time.perf_counter


def now(device: torch.device) -> float:
    """The time when the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Clock.read()


class Peak:
    """The most memory that a `with` block had in use, in bytes: allocated on a GPU, resident on a CPU."""

    def __init__(self, device: torch.device):
        self.device, self.bytes = device, 0

    def __enter__(self) -> Peak:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _reset_resident_peak()
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self.bytes = _resident_peak()


def _reset_resident_peak() -> None:
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
    except OSError:  # not Linux: the peak is that of the whole run
        pass


def _resident_peak() -> int:
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except OSError:
        return 0


def bandwidth(device: torch.device) -> float:
    """Bytes a second that the device reads and writes, measured by copying 256 MiB (a GPU: 4 GiB)."""
    size = 2**32 if device.type == "cuda" else 2**28
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    (best,) = seconds(device, lambda: target.copy_(source), times=5)
    return 2 * size / best


def arithmetic(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 1536
    left = torch.randn(size, size, device=device, dtype=dtype)
    (best,) = seconds(device, lambda: left @ left, times=5)
    return 2 * size**3 / best
