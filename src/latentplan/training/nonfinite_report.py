"""What is left of a step that was not finite, for inspection.

RUN/nonfinite-STEP/  inputs-PROCESS-MICROBATCH.safetensors  report-PROCESS.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from latentplan.common.files import write_atomically

_SHOWN_NAMES = 20


def save_report(
    folder: Path,
    model: nn.Module,
    micro_batches: Sequence[tuple[Any, torch.Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    step: int,
    seed: int,
    process: int,
    parts: Mapping[str, torch.Tensor],
    gradient_norm: torch.Tensor | None,
) -> None:
    """Writes the micro-batches as tensors and as text, the losses, and which gradients are not finite.

    Args:
        folder: where to write.
        model: with the gradients of the step, not clipped.
        micro_batches: this process's batches, each with its loss.
        tokenizer: to write the batches as text.
        step, seed, process: where the run was.
        parts: the last value of each metric recorded in the step.
        gradient_norm: of the whole step; None where it is not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = [tensors_of(inputs) for inputs, _ in micro_batches]
    for place, tensors in enumerate(batches):
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            folder / f"inputs-{process}-{place}.safetensors",
        )
    report = {
        "step": step,
        "seed": seed,
        "process": process,
        "losses": [_number(loss) for _, loss in micro_batches],
        "parts": {name: _number(value) for name, value in parts.items()},
        "gradient_norm": None if gradient_norm is None else _number(gradient_norm),
        "nonfinite_gradients": nonfinite_names((name, p.grad) for name, p in model.named_parameters()),
        "nonfinite_weights": nonfinite_names(model.named_parameters()),
        "texts": [readable(tensors, tokenizer) for tensors in batches],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_atomically(folder / f"report-{process}.json", text + "\n")


def nonfinite_names(tensors: Iterable[tuple[str, torch.Tensor | None]]) -> dict[str, Any]:
    """How many of the named tensors hold a NaN or Inf, their modules, and the first names."""
    found, total = [], 0
    for name, tensor in tensors:
        if tensor is None:
            continue
        total += 1
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if not bool(torch.isfinite(local).all()):
            found.append(name)
    modules = sorted({".".join(name.split(".")[:2]) for name in found})
    return {"count": len(found), "of": total, "modules": modules, "first": found[:_SHOWN_NAMES]}


def tensors_of(inputs: Any) -> dict[str, torch.Tensor]:
    """The tensors of a batch by name: of a mapping, or of an object and the objects in it.

    A name that has been given already stands with that of its object: `old.latents`.
    """
    values = inputs if isinstance(inputs, Mapping) else vars(inputs)
    found: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif hasattr(value, "__dict__"):
            for inner, tensor in tensors_of(value).items():
                found[f"{name}.{inner}" if inner in found else inner] = tensor
    return found


def readable(tensors: Mapping[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[str]]:
    """The text of every `NAME_ids` of a batch that has a `NAME_mask`, row by row."""
    texts = {}
    for name, ids in tensors.items():
        mask = tensors.get(name.removesuffix("_ids") + "_mask")
        if name.endswith("_ids") and mask is not None and mask.shape == ids.shape:
            rows = [row[keep].tolist() for row, keep in zip(ids.cpu(), mask.bool().cpu(), strict=True)]
            texts[name.removesuffix("_ids")] = tokenizer.batch_decode(rows)
    return texts


def _number(value: Any) -> float | str:
    """A number that JSON can hold; `nan` and `inf` as text."""
    number = float(value)
    return number if abs(number) < float("inf") else str(number)
