"""`LatentModelForTraining`: a reasoner, its step decoder and the objectives as one module for a trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_NAME as WEIGHTS_NAME

from latentplan.common.run_files import STEP_DECODER
from latentplan.encoding.chat_template import saved_template
from latentplan.encoding.processor import Batch, ProblemProcessor
from latentplan.methods.base import Method, get_method
from latentplan.modeling.efficiency.gradient_checkpointing import checkpoint_layers, decoder_layers
from latentplan.modeling.efficiency.linear_layers import deferred_weight_gradients
from latentplan.modeling.latent_heads import ValueHead
from latentplan.modeling.loading import LoadedModel, load_model, processor_of
from latentplan.modeling.lora import merge_saved
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder

STEP_DECODER_FOLDER, VALUE_HEAD_FOLDER = STEP_DECODER, "value_head"


class LatentModelForTraining(nn.Module):
    """The parts of a method put together.

    Args:
        reasoner: the latent reasoner.
        step_decoder: decodes steps from latents, or None.
        objectives: weight of each objective; the method's own weights where it is None.
        value_head: what Latent RL trains beside the policy, or None.

    Raises:
        ValueError: an objective does not exist, needs a part that is absent, or divides by steps where
            latents stand for none; or widths differ.
    """

    def __init__(
        self,
        reasoner: LatentReasoner,
        step_decoder: StepDecoder | None = None,
        objectives: Mapping[str, float] | None = None,
        value_head: ValueHead | None = None,
    ):
        super().__init__()
        self.reasoner = reasoner
        self.step_decoder = step_decoder
        self.value_head = value_head
        self.method: Method = get_method(
            reasoner.config.method, reasoner.config.code_source, reasoner.config.method_settings
        )
        self.objectives = self.method.all_objectives
        self.weights = dict(self.method.objectives if objectives is None else objectives)
        self._check()

    def _check(self) -> None:
        parts = {
            "step_decoder": self.step_decoder,
            "stop_head": self.reasoner.stop_head,
            "gaussian latent_head": self.reasoner.is_gaussian or None,
        }
        for name in self.weights:
            if name not in self.objectives:
                raise ValueError(f"objectives must be among {sorted(self.objectives)}, got {name!r}")
            needs = self.objectives[name].needs
            if needs is not None and parts[needs] is None:
                raise ValueError(f"the objective {name!r} needs a {needs}, which this model does not have")
            config = self.reasoner.config
            if self.objectives[name].by_step and config.has_latents and not config.latents_are_steps:
                raise ValueError(
                    f"the objective {name!r} divides by the latent steps of a stage, and the latents of "
                    f"{config.method} stand for tokens: leave it out"
                )
        if self.step_decoder and self.step_decoder.config.latent_size != self.reasoner.config.hidden_size:
            raise ValueError(
                f"the step decoder reads latents of width {self.step_decoder.config.latent_size}, and this "
                f"reasoner's have {self.reasoner.config.hidden_size}"
            )

    def num_items(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Counts the items of each objective in a batch, `[entries]` each; those of micro-batches add up."""
        return {name: self.objectives[name].num_items(batch) for name in self.weights}

    def forward(
        self,
        num_items: dict[str, torch.Tensor] | None = None,
        compute: Callable[[LatentModelForTraining], Any] | None = None,
        **batch: torch.Tensor,
    ) -> Any:
        """Computes the loss and each unweighted objective (`loss/text`, …), scalars.

        Args:
            num_items: of each objective, over the effective batch of which this batch is a share; None
                where it is all of it.
            compute: what is called with this model and returned instead of the losses. Distributed wrappers
                only see gradients of what runs inside `forward`.
            batch: as `collate` and the method lay it out.
        """
        with deferred_weight_gradients(self):
            return self._losses(num_items, batch) if compute is None else compute(self)

    def _losses(self, num_items: dict[str, torch.Tensor] | None, batch: Batch) -> dict[str, torch.Tensor]:
        num_items = num_items or self.num_items(batch)
        passed = self.method.forward(self.reasoner, batch)
        device = passed.text_hidden.device
        values = {
            name: self.objectives[name].value(self, passed, batch, num_items[name].to(device))
            for name in self.weights
        }
        loss = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return {"loss": loss, **{f"loss/{name}": value.detach() for name, value in values.items()}}

    def train(self, mode: bool = True) -> LatentModelForTraining:
        """As for any module; a part of which nothing is trained stays without dropout."""
        super().train(mode)
        for part in (self.reasoner, self.step_decoder):
            if part is not None and not any(each.requires_grad for each in part.parameters()):
                part.eval()
        return self

    def save_pretrained(
        self,
        folder: str | os.PathLike,
        tokenizer: PreTrainedTokenizerBase | None = None,
        state_dict: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Writes the reasoner to `folder`, step decoder and value head to folders in it, as safetensors.

        `state_dict` holds the weights of the whole system where its own are spread over several devices.
        """
        self.reasoner.save_pretrained(folder, state_dict=_part(state_dict, "reasoner."))
        if self.step_decoder is not None:
            place = Path(folder) / STEP_DECODER_FOLDER
            self.step_decoder.save_pretrained(place, state_dict=_part(state_dict, "step_decoder."))
        if self.value_head is not None:
            place = Path(folder) / VALUE_HEAD_FOLDER
            place.mkdir(parents=True, exist_ok=True)
            save_file(_part(state_dict, "value_head.") or self.value_head.state_dict(), place / WEIGHTS_NAME)
        if tokenizer is not None:
            template = tokenizer.chat_template
            tokenizer.chat_template = saved_template(tokenizer, make_processor(tokenizer, self.reasoner).chat)
            tokenizer.save_pretrained(folder)
            tokenizer.chat_template = template

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Runs the layers again in the backward pass instead of keeping what they computed (all passes).

        The arguments of transformers' method of the same name are of no use here: every layer is run again.
        """
        for backbone in self._backbones():
            checkpoint_layers(backbone)

    gradient_checkpointing_enable = activation_checkpointing_enable  # transformers before 5.20

    @property
    def _no_split_modules(self) -> set[str]:
        """Names of the layer classes, which sharding engines take as their units."""
        return {type(layer).__name__ for backbone in self._backbones() for layer in decoder_layers(backbone)}

    def _backbones(self) -> list[PreTrainedModel]:
        parts = [self.reasoner] if self.step_decoder is None else [self.reasoner, self.step_decoder]
        return [cast(PreTrainedModel, part.backbone) for part in parts]

    @property
    def has_adapters(self) -> bool:
        """Whether there are LoRA adapters in the reasoner or in the step decoder."""
        parts = (self.reasoner, self.step_decoder)
        return any(part is not None and part.config.lora is not None for part in parts)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        objectives: Mapping[str, float] | None = None,
        trust_remote_code: bool = False,
    ) -> tuple[LatentModelForTraining, LoadedModel]:
        """A saved system, and its tokenizer and processor beside it; the arguments as of `load_model`."""
        loaded = load_model(folder, trust_remote_code)
        return cls(loaded.reasoner, loaded.step_decoder, objectives), loaded


def save_finished(
    system: LatentModelForTraining,
    folder: str | os.PathLike,
    tokenizer: PreTrainedTokenizerBase,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes a trained system as `save_pretrained` does, with LoRA adapters merged into the weights."""
    system.save_pretrained(folder, tokenizer, state_dict)
    if system.has_adapters:
        # Written above, by code that runs already.
        save_merged(load_model(folder, trust_remote_code=True, sound=False), folder)


def save_merged(saved: LoadedModel, folder: str | os.PathLike) -> None:
    """Merges the adapters of a model that was loaded from `folder`, and writes it there without them."""
    for part, place in ((saved.reasoner, ""), (saved.step_decoder, STEP_DECODER_FOLDER)):
        if part is not None and part.config.lora is not None:
            merge_saved(part, Path(folder) / place)


def _part(state_dict: Mapping[str, torch.Tensor] | None, prefix: str) -> dict[str, torch.Tensor] | None:
    if state_dict is None:
        return None
    return {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}


def make_processor(tokenizer: PreTrainedTokenizerBase, reasoner: LatentReasoner) -> ProblemProcessor:
    """The processor that a reasoner's configuration describes."""
    return processor_of(reasoner.config, tokenizer)
