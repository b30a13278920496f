"""`LatentReasoner`: a causal language model that reasons in continuous latents before it generates text."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers import initialization as init

from latentplan.modeling.backbones import finish_logits
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.linear_layers import install
from latentplan.modeling.input_rules import input_rule
from latentplan.modeling.latent_heads import PauseHead, StopHead, latent_head_class
from latentplan.modeling.lora import ADAPTER_PARTS, add_lora
from latentplan.modeling.saving import SavedModel
from latentplan.modeling.thinking import thinking_process


class LatentReasoner(SavedModel):
    """A backbone with a latent head and a stop head.

    Args:
        config: which parts there are.
        backbone: a causal language model to build on; made from `config.backbone_config` where it is None.

    Raises:
        UntrustedCodeError: the configuration is of a checkpoint that names code, and is not trusted.
        ValueError: the configuration names a latent head that does not exist.
    """

    config_class = LatentReasonerConfig
    config: LatentReasonerConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    # Latents and stop logits are computed in float32 whatever the backbone's dtype; adapters are trained in
    # it.
    _keep_in_fp32_modules_strict = ["latent_head", "stop_head", *ADAPTER_PARTS]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LatentReasonerConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        self.backbone = backbone or AutoModelForCausalLM.from_config(config.backbone_config)
        config.backbone_config = self.backbone.config
        self.latent_head = self.stop_head = None
        if config.latent_head is not None:
            self.latent_head = latent_head_class(config.latent_head, config.code_source)(
                config.hidden_size, config.initial_latent_scale, config.initial_log_variance
            )
            if config.stop_head:
                self.stop_head = StopHead(config.hidden_size, getattr(self.latent_head, "output_scale", 1.0))
        self.thinking = thinking_process(config.thinking, config.thinking_settings, config.code_source)
        self.input_rule = input_rule(config.input_rule, config.input_rule_settings, config.code_source)
        self.post_init()
        if config.lora is not None:
            add_lora(self.backbone, config.lora)
        install(self.backbone)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = getattr(self.config.backbone_config, "initializer_range", 0.02)
        if hasattr(module, "orthogonal_gain"):
            init.orthogonal_(cast(torch.Tensor, module.weight), gain=cast(float, module.orthogonal_gain))
            init.constant_(cast(torch.Tensor, module.bias), 0.0)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=std)
            if module.bias is not None:
                init.constant_(module.bias, getattr(module, "initial_bias", 0.0))
        elif isinstance(module, nn.LayerNorm):
            init.constant_(module.weight, getattr(module, "initial_weight", 1.0))
            init.zeros_(module.bias)
        elif isinstance(module, PauseHead):
            init.normal_(module.embedding, std=std)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the backbone's token embeddings."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the backbone's token embeddings."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Returns the backbone's output layer."""
        return self.backbone.get_output_embeddings()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Maps token ids `[batch, tokens]` to input embeddings `[batch, tokens, hidden]`."""
        return self.get_input_embeddings()(ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps last hidden states `[..., hidden]` to float32 logits `[..., vocabulary]`."""
        return finish_logits(self.backbone.config, self.get_output_embeddings()(hidden))

    def start(self, question_ids: torch.Tensor, question_mask: torch.Tensor) -> DecodingState:
        """Returns a state in which left-padded questions `[batch, question]` are pending."""
        return DecodingState(self.backbone, self.embed(question_ids), question_mask)

    def set_input_rule(self, name: str, settings: dict[str, Any] | None = None) -> None:
        """Changes the rule for the next input, here and in the configuration that is saved.

        Raises:
            ValueError: there is no such rule, or it has no such settings.
        """
        self.input_rule = input_rule(name, settings)
        self.config.input_rule, self.config.input_rule_settings = name, settings

    @property
    def is_gaussian(self) -> bool:
        """Whether latents are drawn from Gaussians, and not deterministic; the thinking process decides."""
        return self.thinking.draws(self)

    def end_latent(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the embedding of `<|end-latent|>`, `[rows, 1, hidden]`, and its mask, `[rows, 1]`."""
        ids = torch.full((rows, 1), cast(int, self.config.end_latent_token_id), device=self.device)
        return self.embed(ids), torch.ones_like(ids)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Runs the backbone without latents, for tools that expect a causal language model."""
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


AutoModel.register(LatentReasonerConfig, LatentReasoner)
