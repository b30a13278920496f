"""`LatentSystem`: a reasoner, its step decoder and the objectives as one module, which a trainer trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from latentplan.encoding.chat import saved_template
from latentplan.encoding.encoder import Batch, Encoder
from latentplan.methods.base import Method
from latentplan.methods.objectives import OBJECTIVES
from latentplan.methods.registry import get_method
from latentplan.modeling.loading import LoadedModel, encoder_of, load_model
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder

STEP_DECODER_FOLDER = "step_decoder"


class LatentSystem(nn.Module):
    """The parts of a method put together.

    Args:
        reasoner: the latent reasoner.
        step_decoder: decodes steps from latents, or None.
        objectives: weight of each objective; the method's own weights where it is None.

    Raises:
        ValueError: an objective does not exist, or needs a part that is absent, or widths differ.
    """

    def __init__(
        self,
        reasoner: LatentReasoner,
        step_decoder: StepDecoder | None = None,
        objectives: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.reasoner = reasoner
        self.step_decoder = step_decoder
        self.method: Method = get_method(reasoner.config.method)
        self.weights = dict(self.method.objectives if objectives is None else objectives)
        self._check()

    def _check(self) -> None:
        parts = {
            "step_decoder": self.step_decoder,
            "stop_head": self.reasoner.stop_head,
            "gaussian latent_head": getattr(self.reasoner.latent_head, "log_variance", None),
        }
        for name in self.weights:
            if name not in OBJECTIVES:
                raise ValueError(f"objectives must be among {sorted(OBJECTIVES)}, got {name!r}")
            needs = OBJECTIVES[name].needs
            if needs is not None and parts[needs] is None:
                raise ValueError(f"the objective {name!r} needs a {needs}, which this model does not have")
        if self.step_decoder and self.step_decoder.config.hidden_size != self.reasoner.config.hidden_size:
            raise ValueError(
                f"the step decoder's width {self.step_decoder.config.hidden_size} must equal the latents' "
                f"width {self.reasoner.config.hidden_size}"
            )

    def counts(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Each objective's count vector for a batch; counts of micro-batches add up."""
        return {name: OBJECTIVES[name].count(batch) for name in self.weights}

    def forward(
        self,
        counts: dict[str, torch.Tensor] | None = None,
        compute: Callable[[LatentSystem], Any] | None = None,
        **batch: torch.Tensor,
    ) -> Any:
        """The loss and each unweighted objective (`loss/text`, …): shares of the effective batch of `counts`.

        With `compute`, whatever that function of the system returns instead: distributed wrappers only see
        gradients of what runs inside `forward`.
        """
        if compute is not None:
            return compute(self)
        counts = counts or self.counts(batch)
        passed = self.method.forward(self.reasoner, batch)
        values = {
            name: OBJECTIVES[name].value(self, passed, batch, counts[name].to(passed.text_hidden.device))
            for name in self.weights
        }
        loss = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return {"loss": loss, **{f"loss/{name}": value.detach() for name, value in values.items()}}

    def save_pretrained(
        self, folder: str | os.PathLike, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        """Writes the reasoner to `folder` and the step decoder to `folder/step_decoder`, as safetensors."""
        self.reasoner.save_pretrained(folder)
        if self.step_decoder is not None:
            self.step_decoder.save_pretrained(Path(folder) / STEP_DECODER_FOLDER)
        if tokenizer is not None:
            template = tokenizer.chat_template
            tokenizer.chat_template = saved_template(tokenizer, make_encoder(tokenizer, self.reasoner).chat)
            tokenizer.save_pretrained(folder)
            tokenizer.chat_template = template

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike, objectives: Mapping[str, float] | None = None
    ) -> tuple[LatentSystem, LoadedModel]:
        """A saved system, and its tokenizer and encoder beside it."""
        loaded = load_model(folder)
        return cls(loaded.reasoner, loaded.step_decoder, objectives), loaded


def make_encoder(tokenizer: PreTrainedTokenizerBase, reasoner: LatentReasoner) -> Encoder:
    """The encoder that a reasoner's configuration describes."""
    return encoder_of(reasoner.config, tokenizer)
