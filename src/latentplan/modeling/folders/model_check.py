"""The check of a loaded model: its parts fit each other, its weights are finite, and it runs."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.utils import CONFIG_NAME

from latentplan.common.run_files import STEP_DECODER
from latentplan.encoding.processor import pad_left
from latentplan.encoding.tokenizers import END_LATENT, START_LATENT
from latentplan.modeling.configuration import LatentReasonerConfig, StepDecoderConfig
from latentplan.modeling.folders.damage import DamagedModelError, blamed_on
from latentplan.modeling.thinking import unroll
from latentplan.problems.problem import Problem

if TYPE_CHECKING:
    from latentplan.modeling.loading import LoadedModel

_TEXT = "Añy 7 ☃"
"""A question with words that a small vocabulary does not contain."""


def check_sound(model: LoadedModel, folder: Path) -> None:
    """Checks what cannot be seen from single files.

    Args:
        model: that was loaded.
        folder: from which, for the message.

    Raises:
        DamagedModelError: parts do not fit each other, a weight is not finite, or the model does not run.
    """
    _check_savable(model.reasoner.config, folder)
    _check_tokens(model, folder)
    _check_decoder(model, folder)
    _check_finite(model.reasoner, folder)
    if model.step_decoder is not None:
        _check_finite(model.step_decoder, folder / STEP_DECODER)
    with blamed_on(folder / CONFIG_NAME, "the model that it describes does not run"):
        _run(model, folder)


def _check_savable(config: LatentReasonerConfig | StepDecoderConfig, folder: Path) -> None:
    """Refuses a configuration that can be loaded but not saved, which would fail after training."""
    with blamed_on(folder / CONFIG_NAME, "it could not be saved again"):
        config.validate()
        config.to_json_string()


def _check_tokens(model: LoadedModel, folder: Path) -> None:
    """Compares the tokenizer's ids with those in the configuration and with the number of embeddings."""
    config, tokenizer = model.reasoner.config, model.tokenizer
    with blamed_on(folder, "its tokenizer does not work"):
        last = max(tokenizer.get_vocab().values())
        ours = {"pad_token_id": tokenizer.pad_token_id}
        if config.has_latents:
            named = zip(
                ("start_latent_token_id", "end_latent_token_id"), (START_LATENT, END_LATENT), strict=True
            )
            ours |= {name: tokenizer.convert_tokens_to_ids(token) for name, token in named}
    for name, index in ours.items():
        if getattr(config, name) is None or getattr(config, name) != index:
            raise DamagedModelError(
                folder / CONFIG_NAME, f"{name} is {getattr(config, name)}, and the tokenizer says {index}"
            )
    if model.processor.eos not in _ends(config):
        raise DamagedModelError(
            folder / CONFIG_NAME,
            f"eos_token_id is {config.eos_token_id}, and answers end with {model.processor.eos}",
        )
    _check_rows(config, model.reasoner, last, folder)


def _check_rows(
    config: LatentReasonerConfig | StepDecoderConfig, model: nn.Module, last: int, folder: Path
) -> None:
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr, operator]
    largest = max(last, config.pad_token_id or 0, *_ends(config))
    if largest >= rows:
        raise DamagedModelError(
            folder / CONFIG_NAME,
            f"the model has embeddings for {rows} tokens, and there is a token {largest}",
        )


def _ends(config: LatentReasonerConfig | StepDecoderConfig) -> list[int]:
    eos = config.eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def _check_decoder(model: LoadedModel, folder: Path) -> None:
    """Compares the step decoder with the reasoner whose latents it reads."""
    if model.step_decoder is None:
        return
    theirs, ours = model.step_decoder.config, model.reasoner.config
    _check_savable(theirs, folder / STEP_DECODER)
    file = folder / STEP_DECODER / CONFIG_NAME
    for what, one, other in (
        ("latents_per_step", theirs.latents_per_step, ours.latents_per_step),
        ("latent_size", theirs.latent_size, ours.hidden_size),
    ):
        if one != other:
            raise DamagedModelError(file, f"{what} is {one}, and the reasoner's latents have {other}")
    if theirs.pad_token_id is None or not _ends(theirs):
        raise DamagedModelError(file, "it names no pad_token_id or no eos_token_id")
    _check_rows(theirs, model.step_decoder, max(model.tokenizer.get_vocab().values()), folder / STEP_DECODER)


def _check_finite(model: nn.Module, folder: Path) -> None:
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach().sum(dtype=torch.float32))):
            raise DamagedModelError(folder, f"the tensor {name} holds numbers that are not finite")


@torch.no_grad()
def _run(model: LoadedModel, folder: Path) -> None:
    """Runs two questions, two latents, one token, and two tokens of a decoded step."""
    reasoner, decoder = model.reasoner, model.step_decoder
    with blamed_on(folder, "its tokenizer does not read and write text"):
        rows = [model.processor.unchecked(Problem(text, (), "1")).question for text in (_TEXT, "1")]
        model.tokenizer.batch_decode(rows)
    ids, mask = (each.to(reasoner.device) for each in pad_left(rows, reasoner.config.pad_token_id or 0))
    context = reasoner.start(ids, mask)
    slots = min(2, reasoner.config.num_slots)
    latents = unroll(
        reasoner, context, torch.ones(2, slots, dtype=torch.long, device=ids.device), None
    ).latents
    if reasoner.stop_head is not None:
        reasoner.stop_head(latents)
    logits = reasoner.logits(context.read()[:, -1])
    if not bool(torch.isfinite(logits).all() and torch.isfinite(latents).all()):
        raise DamagedModelError(folder, "its weights give numbers that are not finite")
    if decoder is not None:
        shape = (1, decoder.config.latents_per_step, reasoner.config.hidden_size)
        with blamed_on(folder / STEP_DECODER / CONFIG_NAME, "the model that it describes does not run"):
            decoder.decode(torch.zeros(shape, device=ids.device), max_new_tokens=2)
