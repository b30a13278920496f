"""Loading a saved model from its folder alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME
from transformers.utils import logging as hf_logging

from latentplan.common.plugins import CodeSource
from latentplan.common.run_files import RECORD, STEP_DECODER, model_folders, model_in
from latentplan.common.run_files import is_latent_checkpoint as is_latent_checkpoint  # where it was once
from latentplan.encoding.chat_template import ChatTemplate
from latentplan.encoding.processor import ProblemProcessor
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.folders.damage import DamagedModelError, blamed_on, check_regular, read_json
from latentplan.modeling.folders.model_check import check_sound
from latentplan.modeling.folders.remote_code import tokenizer_code
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.saving import CODE_FILE
from latentplan.modeling.step_decoder import StepDecoder

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass
class LoadedModel:
    """A reasoner with its tokenizer, processor and step decoder (None for methods without one)."""

    reasoner: LatentReasoner
    step_decoder: StepDecoder | None
    tokenizer: PreTrainedTokenizerBase
    processor: ProblemProcessor


def find_model(folder: str | os.PathLike) -> Path:
    """Returns the folder itself, or the `model` folder of a run.

    Raises:
        DamagedModelError: one of them holds a model whose config.json is missing or damaged.
        FileNotFoundError: neither holds a latentplan model; the message says what is there instead.
    """
    folder = Path(folder)
    model = model_in(folder)
    if model is not None:
        return model
    refuse_damaged(folder)
    wanted = "(a folder with config.json and model.safetensors, such as runs/NAME/model)"
    if not folder.exists():
        raise FileNotFoundError(f"{folder} holds no latentplan model {wanted}: there is no such folder")
    if (folder / RECORD).is_file():
        raise FileNotFoundError(
            f"{folder} holds no latentplan model yet: the run has not ended; the same `latentplan sft` or "
            "`latentplan grpo` command resumes it if it was interrupted"
        )
    raise FileNotFoundError(
        f"{folder} holds no latentplan model {wanted}: train one with `latentplan sft` first"
    )


def refuse_damaged(folder: str | os.PathLike) -> None:
    """Raises DamagedModelError where a folder, or a run's `model` folder, lacks a readable config.json."""
    for each in model_folders(folder):
        if os.path.lexists(each / CONFIG_NAME) or (each / CODE_FILE).is_file():
            read_json(each / CONFIG_NAME)


def load_model(
    folder: str | os.PathLike, trust_remote_code: bool = False, *, sound: bool = True, **options: Any
) -> LoadedModel:
    """Loads what `LatentModelForTraining.save_pretrained` wrote.

    Args:
        folder: a run or a model folder.
        trust_remote_code: whether code may run that the folder names: its maker's latent head or method, an
            attention kernel of the hub, a tokenizer's own class. Each is logged before it runs.
        sound: whether the parts are checked against each other and the model is run once; not needed right
            after saving.
        options: are passed to the reasoner's `from_pretrained`.

    Raises:
        CheckpointMismatchError: its weights are not those that its configuration describes.
        DamagedModelError: a file is missing or damaged or contradicts another; says which and what is wrong.
        FileNotFoundError: the folder holds no latentplan model; the message says where one may be.
        UntrustedCodeError: it names code, and `trust_remote_code` is False.
    """
    folder = find_model(folder)
    hf_logging.disable_progress_bar()
    check_regular(folder)
    code = tokenizer_code(folder)
    if code is not None:
        CodeSource(str(folder), trust_remote_code).allow(code)
    reasoner = LatentReasoner.from_pretrained(folder, trust_remote_code=trust_remote_code, **options)
    decoder_folder, decoder = folder / STEP_DECODER, None
    if os.path.lexists(decoder_folder):
        decoder = StepDecoder.from_pretrained(decoder_folder, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(folder, trust_remote_code)
    with blamed_on(folder, "its tokenizer does not fit the model"):
        processor = processor_of(reasoner.config, tokenizer)
    model = LoadedModel(reasoner.eval(), decoder.eval() if decoder else None, tokenizer, processor)
    if sound:
        check_sound(model, folder)
    return model


def load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a model folder. Raises DamagedModelError where a file is missing or damaged."""
    try:
        with blamed_on(folder, "its tokenizer cannot be loaded"):
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except DamagedModelError:
        for name in _TOKENIZER_FILES:  # which of them, if one is missing or is not even JSON
            if name == _TOKENIZER_FILES[0] or os.path.lexists(folder / name):
                read_json(folder / name)
        raise


def processor_of(config: LatentReasonerConfig, tokenizer: PreTrainedTokenizerBase) -> ProblemProcessor:
    """Makes the processor that a reasoner's configuration describes.

    Raises:
        ValueError: the configuration has a chat template, and the tokenizer has none.
    """
    chat = ChatTemplate(tokenizer, config.system_prompt) if config.chat_template else None
    reserved = config.num_slots + config.num_start_tokens + 1 if config.has_latents else 0
    return ProblemProcessor(
        tokenizer, config.step_separator, config.answer_marker, chat, config.max_positions, reserved
    )
