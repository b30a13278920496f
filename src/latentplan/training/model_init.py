"""What a run starts from: a tokenizer, a backbone and a step decoder, loaded or made from scratch."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latentplan.common.plugins import CodeSource
from latentplan.common.run_files import is_latent_checkpoint, model_in
from latentplan.encoding.chat_template import ChatTemplate
from latentplan.encoding.tokenizers import (
    END_LATENT,
    START_LATENT,
    TOKENIZERS,
    add_special_tokens,
    grow_embeddings,
    initialise_special_tokens,
    num_rows,
    problem_texts,
    resize_embeddings,
)
from latentplan.methods.base import get_method
from latentplan.modeling.backbone_check import probe
from latentplan.modeling.backbones import check_config, text_model
from latentplan.modeling.configuration import LatentReasonerConfig, StepDecoderConfig
from latentplan.modeling.folders.adapter_folders import WITHOUT_ADAPTER, has_adapter, merge_adapter
from latentplan.modeling.folders.damage import blamed_on
from latentplan.modeling.folders.remote_code import adapter_code, hub_kernels
from latentplan.modeling.latent_heads import latent_head_class
from latentplan.modeling.loading import LoadedModel, load_model, refuse_damaged
from latentplan.modeling.lora import add_lora, merge_lora
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.saving import check_folder
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.modeling.thinking import thinking_process
from latentplan.problems.problem import Problem
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.trainable_model import LatentModelForTraining, make_processor

logger = logging.getLogger(__name__)
_NO_MODEL = "it cannot be loaded as a language model"
_CHECK_IT = "check its name and the network, or download the folder again"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def initialise_system(
    model: ModelArguments, config: SFTConfig, problems: Sequence[Problem]
) -> tuple[LatentModelForTraining, PreTrainedTokenizerBase]:
    """The system that supervised training starts from, and its tokenizer.

    From a latent model its heads and its decoder are taken over too, where the new run has the same parts.

    Raises:
        ValueError: neither a model nor a backbone configuration is named, or a part does not fit.
    """
    method = get_method(config.method)  # before the start is loaded: what the user names is the user's
    if config.latent_head is not None:
        latent_head_class(config.latent_head)
    thinking_process(config.thinking or method.thinking, config.thinking_settings)
    start = load_start(model)
    if start is not None:
        backbone, tokenizer = start.reasoner.backbone, start.tokenizer
    else:
        backbone, tokenizer = load_backbone(model, problems)
    layout = _question_layout(model, tokenizer, start)
    reasoner = LatentReasoner(reasoner_config(config, backbone, _tokens(tokenizer), layout), backbone)
    objectives = method.objectives if config.objectives is None else config.objectives
    decoder = None
    if "step_decoder" in objectives:
        decoder = _inherited_decoder(model, config, start)
        eos = make_processor(tokenizer, reasoner).eos
        decoder = decoder or _step_decoder(model, config, backbone, tokenizer, eos)
    if start is not None:
        _inherit_heads(reasoner, start.reasoner)
    choose_trained_weights(model, reasoner, decoder)
    return LatentModelForTraining(reasoner, decoder, objectives), tokenizer


def choose_trained_weights(
    model: ModelArguments, reasoner: LatentReasoner, decoder: StepDecoder | None
) -> None:
    """Puts LoRA adapters in, or freezes the backbone, as the settings say; otherwise all weights are trained.

    Raises:
        ValueError: nothing would be left to train.
    """
    for part in (reasoner, decoder):
        if part is not None and part.config.lora is not None:
            merge_lora(part.backbone)
            part.config.lora = None
            part.backbone.requires_grad_(True)
    if model.use_peft:
        for part in (reasoner, decoder):
            if part is not None:
                part.config.lora = _lora_settings(model)
                add_lora(part.backbone, part.config.lora)
    elif model.freeze_backbone:
        reasoner.backbone.requires_grad_(False)
        if reasoner.latent_head is None or not any(True for _ in reasoner.latent_head.parameters()):
            raise ValueError(
                f"freeze_backbone leaves nothing to train that could change the answers of "
                f"{reasoner.config.method}: use_peft trains adapters instead"
            )


def _lora_settings(model: ModelArguments) -> dict[str, Any]:
    return {
        "r": model.lora_r,
        "lora_alpha": model.lora_alpha,
        "lora_dropout": model.lora_dropout,
        "target_modules": model.lora_target_modules,
    }


def load_start(model: ModelArguments) -> LoadedModel | None:
    """The latentplan model that a run starts from; None for another language model, or from scratch.

    The latent tokens of a text model are initialised here, since it has never seen them.
    """
    if model.model_name_or_path is None:
        return None
    path = _resolve(model.model_name_or_path)
    if not is_latent_checkpoint(path):
        refuse_damaged(path)
        return None
    start = load_model(path, model.trust_remote_code, **_attention(model))
    start.reasoner.backbone.to(dtype=as_dtype(model.dtype))  # type: ignore[call-arg]
    if not start.reasoner.config.has_latents:
        initialise_special_tokens(start.reasoner.backbone, start.tokenizer)
    return start


def load_backbone(
    model: ModelArguments, problems: Sequence[Problem]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, with the latent tokens added.

    Raises:
        UnsupportedBackboneError: the model cannot be a backbone (before its weights are loaded, where its
            configuration tells).
        ValueError: the folder holds an adapter alone, or one that does not fit; or the tokenizer has no end
            token.
    """
    if model.model_name_or_path is None:
        return _backbone_from_scratch(model, problems)
    path, source = model.model_name_or_path, _source(model)
    with blamed_on(path, _NO_MODEL, _CHECK_IT):
        adapted = has_adapter(path, model.model_revision)
        backbone_config = AutoConfig.from_pretrained(path, **source)
    check_config(backbone_config)
    _ask_for_trust(model, backbone_config)
    dtype = as_dtype(model.dtype)
    if any(Path(path).glob("model*.safetensors*")):
        check_folder(Path(path), backbone_config, lambda: AutoModelForCausalLM.from_config(backbone_config))
    with blamed_on(path, _NO_MODEL, _CHECK_IT):
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, **_attention(model), **source, **WITHOUT_ADAPTER
        )
    if adapted:
        with blamed_on(path, "its adapter cannot be merged", _CHECK_IT):
            grow_embeddings(loaded, tokenizer)  # the adapter may have been trained with more tokens
            merge_adapter(loaded, path)
    backbone = text_model(loaded)
    probe(backbone)
    with blamed_on(path, "its tokenizer does not fit it", _CHECK_IT):
        add_special_tokens(tokenizer)
        resize_embeddings(backbone, tokenizer)
    return backbone, tokenizer


def _ask_for_trust(model: ModelArguments, config: PreTrainedConfig) -> None:
    """Refuses code that a language model's folder names, unless the settings trust it.

    That of its tokenizer transformers asks for itself.
    """
    folder = str(model.model_name_or_path)
    named = [f"the attention kernel {kernel!r}" for kernel in hub_kernels(config)]
    adapter = adapter_code(Path(folder))
    for code in [*(named if model.attn_implementation is None else []), *([adapter] if adapter else [])]:
        CodeSource(folder, model.trust_remote_code).allow(code)


def as_dtype(name: str) -> torch.dtype:
    """The torch dtype called `name`. Raises ValueError with the names that there are."""
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {sorted(DTYPES)}, got {name!r}")
    return DTYPES[name]


def _inherit_heads(reasoner: LatentReasoner, start: LatentReasoner) -> None:
    """Copies the heads of the model that a run starts from; says which it cannot."""
    for name in ("latent_head", "stop_head"):
        mine, theirs = getattr(reasoner, name), getattr(start, name)
        if mine is not None and type(mine) is type(theirs):
            mine.load_state_dict(theirs.state_dict())
        elif theirs is not None:
            logger.warning("the %s of the starting model is left behind: this run has another", name)


def _inherited_decoder(
    model: ModelArguments, config: SFTConfig, start: LoadedModel | None
) -> StepDecoder | None:
    if start is None or model.step_decoder_name_or_path is not None or start.step_decoder is None:
        return None
    fits = start.step_decoder.config.latents_per_step == config.latents_per_step
    if not fits:
        logger.warning("the step decoder of the starting model reads another number of latents a step")
    return start.step_decoder if fits else None


def _backbone_from_scratch(
    model: ModelArguments, problems: Sequence[Problem]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if model.backbone_config is None:
        raise ValueError(
            "a run needs model_name_or_path (a model to start from) or backbone_config (to train one "
            "from scratch)"
        )
    if model.tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer must be one of {sorted(TOKENIZERS)}, got {model.tokenizer!r}")
    tokenizer = TOKENIZERS[model.tokenizer](problem_texts(problems), model.vocab_size)
    add_special_tokens(tokenizer)
    settings = dict(model.backbone_config)
    config_class: Any = CONFIG_MAPPING[settings.pop("model_type", "llama")]
    backbone_config = config_class(
        **settings,
        vocab_size=num_rows(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    check_config(backbone_config)
    backbone = AutoModelForCausalLM.from_config(backbone_config, **_attention(model))
    probe(backbone)
    return backbone, tokenizer


def _question_layout(
    model: ModelArguments, tokenizer: PreTrainedTokenizerBase, start: LoadedModel | None
) -> dict[str, Any]:
    """Whether questions are in a chat template, as in the starting model, and what ends answers.

    Raises:
        ValueError: a chat template is wanted, and the tokenizer has none; or a system prompt without one.
    """
    earlier = LatentReasonerConfig() if start is None else start.reasoner.config
    system_prompt = model.system_prompt or earlier.system_prompt
    if not (model.chat_template or earlier.chat_template):
        if system_prompt:
            raise ValueError("system_prompt is part of a chat template: set chat_template to true as well")
        return {"eos_token_id": tokenizer.eos_token_id}
    chat = ChatTemplate(tokenizer, system_prompt)
    ends = dict.fromkeys([chat.end_of_turn, tokenizer.eos_token_id])
    eos = [index for index in ends if index is not None]
    return {
        "chat_template": True,
        "system_prompt": system_prompt,
        "eos_token_id": eos if len(eos) > 1 else eos[0],
    }


def _tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in (START_LATENT, END_LATENT))
    return {
        "start_latent_token_id": start,
        "end_latent_token_id": end,
        "pad_token_id": tokenizer.pad_token_id,
    }


def reasoner_config(
    config: SFTConfig, backbone: PreTrainedModel, tokens: dict[str, Any], layout: dict[str, Any]
) -> LatentReasonerConfig:
    """The parts of a reasoner as the settings, or else the method, want them.

    Args:
        config: the settings.
        backbone: what the reasoner is built on.
        tokens: ids of the latent tokens and of padding.
        layout: how questions are written, and what ends answers.
    """
    method = get_method(config.method, settings=config.method_settings)
    return LatentReasonerConfig(
        backbone_config=backbone.config,
        method=config.method,
        method_settings=asdict(method.settings) or None,
        latent_head=config.latent_head or method.latent_head,
        stop_head=method.stop_head if config.stop_head is None else config.stop_head,
        thinking=config.thinking or method.thinking,
        thinking_settings=config.thinking_settings,
        latents_per_step=config.latents_per_step,
        max_latent_steps=config.max_latent_steps,
        tokens_per_latent=method.tokens_per_latent,
        initial_latent_scale=method.latent_scale(config.initial_latent_scale, backbone),
        initial_log_variance=config.initial_log_variance,
        written_steps=method.written_steps,
        step_separator=config.step_separator,
        answer_marker=config.answer_marker,
        **tokens,
        **layout,
    )


def _step_decoder(
    model: ModelArguments,
    config: SFTConfig,
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    eos_token_id: int,
) -> StepDecoder:
    if model.step_decoder_name_or_path is None:
        language_model = copy.deepcopy(backbone)
    else:
        language_model = _other_language_model(model, tokenizer)
    width = backbone.config.get_text_config().hidden_size
    settings = decoder_config(config, language_model, width, tokenizer.pad_token_id, eos_token_id)
    return StepDecoder(settings, language_model)


def decoder_config(
    config: SFTConfig, language_model: PreTrainedModel, latent_size: int, pad_token_id: Any, eos_token_id: int
) -> StepDecoderConfig:
    """The configuration of a step decoder that is built on `language_model`."""
    return StepDecoderConfig(
        backbone_config=language_model.config,
        latents_per_step=config.latents_per_step,
        latent_size=latent_size,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
    )


def _other_language_model(model: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The language model that `step_decoder_name_or_path` names. Raises ValueError for another vocabulary."""
    name = str(model.step_decoder_name_or_path)
    other = replace(model, model_name_or_path=name, model_revision=None)
    loaded = load_start(other)
    if loaded is not None:
        language_model, vocabulary = loaded.reasoner.backbone, loaded.tokenizer.get_vocab()
    else:
        language_model, its_tokenizer = load_backbone(other, ())
        vocabulary = its_tokenizer.get_vocab()
    if vocabulary != tokenizer.get_vocab():
        raise ValueError(
            f"step_decoder_name_or_path: {name} has another tokenizer than the backbone, and the decoder "
            "must write its tokens: choose a model of the same family"
        )
    return language_model


def _resolve(name_or_path: str) -> str:
    """A run directory stands for the model inside it."""
    return str(model_in(name_or_path) or name_or_path)


def _source(model: ModelArguments) -> dict[str, Any]:
    """Which version of a model, and whether its own code may run."""
    revision = {} if model.model_revision is None else {"revision": model.model_revision}
    return {"trust_remote_code": model.trust_remote_code, **revision}


def _attention(model: ModelArguments) -> dict[str, Any]:
    return {} if model.attn_implementation is None else {"attn_implementation": model.attn_implementation}
