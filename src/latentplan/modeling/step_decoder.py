"""`StepDecoder`: decodes the latents of one step to that step's text (SIM-CoT, arXiv:2509.20317).

It is any causal language model with the reasoner's tokenizer; where its width is not the reasoner's, a
linear layer projects the latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers import initialization as init

from latentplan.modeling.backbones import body, finish_logits
from latentplan.modeling.configuration import StepDecoderConfig
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.linear_layers import install
from latentplan.modeling.latent_heads import Linear, full_precision
from latentplan.modeling.lora import ADAPTER_PARTS, add_lora
from latentplan.modeling.saving import SavedModel
from latentplan.modeling.token_loop import write


class LatentProjection(Linear):
    """A linear layer from latents `[..., latent_size]` to the decoder's width, in float32."""

    @full_precision
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Projects latents `[..., latent_size]` to `[..., hidden]` in float32."""
        return super().forward(inputs)


class StepDecoder(SavedModel):
    """A causal language model whose prefix is the latents of a step.

    Args:
        config: of the language model.
        backbone: a causal language model to build on; made from `config.backbone_config` where it is None.
    """

    config_class = StepDecoderConfig
    config: StepDecoderConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _keep_in_fp32_modules_strict = ["projection", *ADAPTER_PARTS]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: StepDecoderConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        self.backbone = backbone or AutoModelForCausalLM.from_config(config.backbone_config)
        config.backbone_config = self.backbone.config
        self.projection = None
        if config.latent_size is not None and config.latent_size != config.hidden_size:
            self.projection = LatentProjection(config.latent_size, config.hidden_size)
        self.post_init()
        if config.lora is not None:
            add_lora(self.backbone, config.lora)
        install(self.backbone)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises the projection; the backbone initialises itself."""
        if isinstance(module, LatentProjection):
            init.orthogonal_(module.weight)
            init.zeros_(module.bias)

    def read(self, latents: torch.Tensor) -> torch.Tensor:
        """Maps latents `[..., latent_size]` to the language model's input embeddings, `[..., hidden]`."""
        return latents if self.projection is None else self.projection(latents)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the language model's token embeddings."""
        return self.backbone.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Returns the language model's output layer."""
        return self.backbone.get_output_embeddings()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps last hidden states `[..., hidden]` to float32 logits `[..., vocabulary]`."""
        return finish_logits(self.backbone.config, self.get_output_embeddings()(hidden))

    def hidden_states(self, latents: torch.Tensor, step_ids: torch.Tensor) -> torch.Tensor:
        """Computes the last hidden state before each token of a step, given its latents and earlier tokens.

        Args:
            latents: `[pairs, latents_per_step, latent_size]`.
            step_ids: `[pairs, step]`, right-padded (a causal model does not attend to padding on the right).

        Returns:
            `[pairs, step, hidden]`.
        """
        prefix = self.read(latents).to(self.backbone.dtype)
        tokens = self.get_input_embeddings()(step_ids[:, :-1])
        inputs = torch.cat([prefix, tokens], dim=1)
        hidden = body(self.backbone)(inputs_embeds=inputs, use_cache=False).last_hidden_state
        return hidden[:, latents.shape[1] - 1 :]

    def forward(self, latents: torch.Tensor, step_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Computes the logits of each token of a step, `[pairs, step, vocabulary]`; see `hidden_states`."""
        return self.logits(self.hidden_states(latents, step_ids))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, max_new_tokens: int = 64) -> torch.Tensor:
        """Decodes the latents of each step greedily, with a KV cache.

        Args:
            latents: `[pairs, latents_per_step, latent_size]`.
            max_new_tokens: tokens at most.

        Returns:
            Token ids, `[pairs, up to max_new_tokens]`, with padding after the first eos.
        """
        if not len(latents):
            return torch.zeros(0, 0, dtype=torch.long, device=latents.device)
        return write(_Greedy(self), self.start(latents), max_new_tokens, scores=False).ids

    def start(self, latents: torch.Tensor) -> DecodingState:
        """Returns a state in which the latents `[pairs, latents_per_step, latent_size]` are pending."""
        visible = torch.ones(latents.shape[:2], dtype=torch.long, device=latents.device)
        return DecodingState(self.backbone, self.read(latents), visible)


class _Greedy:
    """A step decoder for greedy decoding alone, whose logits need no scale and no float32 copy."""

    def __init__(self, decoder: StepDecoder):
        self.config, self.get_input_embeddings = decoder.config, decoder.get_input_embeddings
        self.logits = decoder.get_output_embeddings()


AutoModel.register(StepDecoderConfig, StepDecoder)
