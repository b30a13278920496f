"""Configurations that describe a checkpoint completely: `from_pretrained(path)` needs nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latentplan.common.run_files import MODEL_TYPE
from latentplan.modeling.folders.config_rules import (
    DTYPE,
    FLAG,
    LORA,
    SETTINGS,
    TOKEN,
    TOKENS,
    Rule,
    number,
    optional,
    text,
    whole,
)
from latentplan.modeling.saving import SavedConfig

_SHARED_RULES: dict[str, Rule] = {
    "latents_per_step": whole(1, 1024),
    "lora": optional(LORA),
    "pad_token_id": optional(TOKEN),
    "eos_token_id": optional(TOKENS),
    "tie_word_embeddings": FLAG,
    "dtype": DTYPE,
}


_COMPRESSION_FACTOR = "compression_factor of a model's configuration is now tokens_per_latent"


def current_names(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a saved `LatentReasonerConfig`, those of earlier versions under today's names."""
    values = dict(saved)
    factor = values.pop("compression_factor", None)
    if factor is not None:
        values["tokens_per_latent"] = factor
        values["method_settings"] = {"compression_factor": factor, **(values.get("method_settings") or {})}
    return values


def _as_config(value: dict[str, Any] | PreTrainedConfig | None) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    values = dict(value or {})
    return CONFIG_MAPPING[values.pop("model_type", "llama")](**values)


def max_positions_of(config: Any) -> int | None:
    """Returns the positions that a backbone has; None where its configuration names no limit."""
    found = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


class LatentReasonerConfig(SavedConfig):
    """The settings that are needed to rebuild and to use a `LatentReasoner`.

    Args:
        backbone_config: configuration of the causal language model.
        method: name of the training method, for the record and for reports.
        method_settings: the method's own settings, with which the model is trained further.
        latent_head: a name in `latent_heads.LATENT_HEADS`, or `package.module:Class`; None without latents.
        stop_head: whether a stop head ends the chain of latents; without it all `num_slots` are used.
        latents_per_step: latent tokens for one reasoning step (`c` in the paper).
        max_latent_steps: latent steps at most (`K` in the paper).
        tokens_per_latent: how many tokens of the chain of thought a latent stands for, where it stands for no
            step (CoLaR); told to the model by as many `<|start-latent|>`. It may be changed after training.
        initial_latent_scale: root mean square of the latents' means when training starts.
        initial_log_variance: bias of the Gaussian head's log σ² when training starts.
        thinking: the thinking process: a name in `thinking.THINKING_PROCESSES`, or `package.module:Class`.
        thinking_settings: the process's own settings.
        input_rule: the rule for the input after each token: a name in `modeling.input_rules`, or
            `package.module:Class`.
        input_rule_settings: the rule's own settings.
        written_steps: whether the model generates an explicit chain of thought before the answer.
        step_separator: text between the steps of an explicit chain.
        answer_marker: text before the answer.
        chat_template: whether questions are formatted by the tokenizer's chat template.
        system_prompt: the system message of that template, or None.
        start_latent_token_id, end_latent_token_id: ids of the tokens around the latents.
        eos_token_id: ends an answer; any of them where it is a list.
        lora: settings of the LoRA adapters in the backbone (`lora.add_lora`); None without adapters, also
            after they have been merged into the weights.
    """

    model_type = MODEL_TYPE
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoConfig": "LatentReasonerConfig",
        "AutoModel": "LatentReasoner",
        "AutoModelForCausalLM": "LatentReasonerForCausalLM",
    }
    rules: ClassVar[dict[str, Rule]] = {
        **_SHARED_RULES,
        "method": text(1),
        "method_settings": optional(SETTINGS),
        "latent_head": optional(text(1)),
        "stop_head": FLAG,
        "max_latent_steps": whole(0, 4096),
        "tokens_per_latent": optional(whole(1, 1024)),
        "initial_latent_scale": number(0, 1e6),
        "initial_log_variance": number(-100, 100),
        "thinking": text(1),
        "thinking_settings": optional(SETTINGS),
        "input_rule": text(1),
        "input_rule_settings": optional(SETTINGS),
        "written_steps": FLAG,
        "step_separator": text(),
        "answer_marker": text(1),
        "chat_template": FLAG,
        "system_prompt": optional(text()),
        "start_latent_token_id": optional(TOKEN),
        "end_latent_token_id": optional(TOKEN),
    }
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    method: str = "atp_latent"
    method_settings: dict[str, Any] | None = None
    latent_head: str | None = "gaussian"
    stop_head: bool = True
    latents_per_step: int = 2
    max_latent_steps: int = 10
    tokens_per_latent: int | None = None
    initial_latent_scale: float = 1.0
    initial_log_variance: float = -4.0
    thinking: str = "sequential"
    thinking_settings: dict[str, Any] | None = None
    input_rule: str = "plain"
    input_rule_settings: dict[str, Any] | None = None
    written_steps: bool = False
    step_separator: str = "\n"
    answer_marker: str = "### "
    chat_template: bool = False
    system_prompt: str | None = None
    start_latent_token_id: int | None = None
    end_latent_token_id: int | None = None
    lora: dict[str, Any] | None = None
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.backbone_config = _as_config(self.backbone_config)
        if "compression_factor" in kwargs:
            warnings.warn(_COMPRESSION_FACTOR, FutureWarning, stacklevel=2)
            own = {"tokens_per_latent": self.tokens_per_latent, "method_settings": self.method_settings}
            renamed = current_names({**own, "compression_factor": kwargs.pop("compression_factor")})
            self.tokens_per_latent = renamed["tokens_per_latent"]
            self.method_settings = renamed["method_settings"]
        # transformers resets the implementation of every sub-configuration here; without one, masks are lost.
        kwargs.setdefault("attn_implementation", self.backbone_config._attn_implementation)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Reads what was saved, also by earlier versions; as the base class.

        Raises:
            InvalidConfigError: a setting has the wrong type or is out of range; names it.
        """
        return super().from_dict(current_names(config_dict), **kwargs)

    @property
    def compression_factor(self) -> int | None:
        """Returns `tokens_per_latent`, which it was called in earlier versions."""
        warnings.warn(_COMPRESSION_FACTOR, FutureWarning, stacklevel=2)
        return self.tokens_per_latent

    @compression_factor.setter
    def compression_factor(self, tokens: int | None) -> None:
        warnings.warn(_COMPRESSION_FACTOR, FutureWarning, stacklevel=2)
        self.tokens_per_latent = tokens

    @property
    def max_positions(self) -> int | None:
        """Positions of the backbone; None where there is no limit."""
        return max_positions_of(self.backbone_config)

    @property
    def num_slots(self) -> int:
        """Latent slots at most, T = c·K; 0 for a model without latents."""
        return 0 if self.latent_head is None else self.latents_per_step * self.max_latent_steps

    @property
    def has_latents(self) -> bool:
        """Whether the model reasons in latents."""
        return self.num_slots > 0

    @property
    def latents_are_steps(self) -> bool:
        """Whether `latents_per_step` latents stand for a reasoning step; false without latents."""
        return self.has_latents and self.tokens_per_latent is None

    @property
    def num_start_tokens(self) -> int:
        """How many `<|start-latent|>` stand before the latents; 0 without latents."""
        return (self.tokens_per_latent or 1) if self.has_latents else 0

    def set_tokens_per_latent(self, tokens: int) -> None:
        """Changes how many tokens a latent stands for. Raises ValueError where it stands for a step."""
        if self.tokens_per_latent is None:
            raise ValueError(f"the latents of {self.method} stand for steps, and not for a number of tokens")
        self.tokens_per_latent = tokens

    @property
    def hidden_size(self) -> int:
        """Width of the backbone and of a latent token."""
        return self.backbone_config.get_text_config().hidden_size  # type: ignore[union-attr]


class StepDecoderConfig(SavedConfig):
    """Configuration of a `StepDecoder`: that of its causal language model, and the latent tokens it reads.

    Args:
        backbone_config: configuration of the causal language model.
        latents_per_step: latents of a step.
        latent_size: width of a latent; None where it is the language model's.
        lora: settings of the LoRA adapters in the language model, as in `LatentReasonerConfig`.
    """

    model_type = "latent_step_decoder"
    auto_classes: ClassVar[dict[str, str]] = {
        "AutoConfig": "StepDecoderConfig",
        "AutoModel": "StepDecoder",
    }
    rules: ClassVar[dict[str, Rule]] = {**_SHARED_RULES, "latent_size": whole(1, 2**20)}
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    latents_per_step: int = 2
    latent_size: int | None = None
    lora: dict[str, Any] | None = None
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.backbone_config = _as_config(self.backbone_config)
        # transformers resets the implementation of every sub-configuration here; without one, masks are lost.
        kwargs.setdefault("attn_implementation", self.backbone_config._attn_implementation)
        super().__post_init__(**kwargs)
        if self.latent_size is None:
            self.latent_size = self.hidden_size

    @property
    def max_positions(self) -> int | None:
        """Positions of the language model; None where there is no limit."""
        return max_positions_of(self.backbone_config)

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return self.backbone_config.get_text_config().hidden_size  # type: ignore[union-attr]


AutoConfig.register(LatentReasonerConfig.model_type, LatentReasonerConfig)
AutoConfig.register(StepDecoderConfig.model_type, StepDecoderConfig)
