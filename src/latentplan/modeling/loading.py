"""Loading a saved model from its folder alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from latentplan.encoding.chat import ChatTemplate
from latentplan.encoding.encoder import Encoder
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder


@dataclass
class LoadedModel:
    """A reasoner with its tokenizer, encoder and step decoder (None for methods without one)."""

    reasoner: LatentReasoner
    step_decoder: StepDecoder | None
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder


def is_latent_checkpoint(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a saved `LatentReasoner` (rather than a plain language model)."""
    config = Path(folder) / "config.json"
    return config.is_file() and f'"{LatentReasonerConfig.model_type}"' in config.read_text()


def find_model(folder: str | os.PathLike) -> Path:
    """The folder itself, or the `model` folder of a run.

    Raises:
        FileNotFoundError: neither holds a latentplan model; the message says what is there instead.
    """
    folder = Path(folder)
    for each in (folder, folder / "model"):
        if is_latent_checkpoint(each):
            return each
    wanted = "(a folder with config.json and model.safetensors, such as runs/NAME/model)"
    if not folder.exists():
        raise FileNotFoundError(f"{folder} holds no latentplan model {wanted}: there is no such folder")
    if (folder / "run.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no latentplan model yet: the run has not ended; the same `latentplan sft` or "
            "`latentplan grpo` command goes on with it if it was interrupted"
        )
    raise FileNotFoundError(
        f"{folder} holds no latentplan model {wanted}: train one with `latentplan sft` first"
    )


def load_model(folder: str | os.PathLike, **options: Any) -> LoadedModel:
    """Loads what `LatentSystem.save_pretrained` wrote; `options` go to the reasoner's `from_pretrained`.

    Raises:
        FileNotFoundError: the folder holds no latentplan model; the message says where one may be.
    """
    folder = find_model(folder)
    hf_logging.disable_progress_bar()
    reasoner = LatentReasoner.from_pretrained(folder, **options)
    decoder_folder = folder / "step_decoder"
    decoder = StepDecoder.from_pretrained(decoder_folder) if decoder_folder.is_dir() else None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = encoder_of(reasoner.config, tokenizer)
    return LoadedModel(reasoner.eval(), decoder.eval() if decoder else None, tokenizer, encoder)


def encoder_of(config: LatentReasonerConfig, tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """The encoder that a reasoner's configuration describes.

    Raises:
        ValueError: it wants a chat template, and the tokenizer has none.
    """
    chat = ChatTemplate(tokenizer, config.system_prompt) if config.chat_template else None
    return Encoder(tokenizer, config.step_separator, config.answer_marker, chat)
