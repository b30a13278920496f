"""What a method is: which parts the model has, how a problem is laid out, and which objectives train it."""

from __future__ import annotations

from typing import ClassVar

from latentplan.encoding.encoder import Batch, EncodedProblem, Encoder, Row
from latentplan.methods.objectives import ForwardPass
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.latents import read_text, unroll
from latentplan.modeling.reasoner import LatentReasoner


class Method:
    """A latent method with its defaults; a new method overrides what differs.

    Attributes:
        name: what a recipe calls it.
        latent_head: a name in `modeling.heads.LATENT_HEADS`, or None without latents.
        stop_head: whether a stop head ends the chain of latents.
        written_steps: whether the model writes its steps before the answer.
        objectives: the default weight of each objective in `objectives.OBJECTIVES`.
    """

    name: ClassVar[str]
    latent_head: ClassVar[str | None] = None
    stop_head: ClassVar[bool] = False
    written_steps: ClassVar[bool] = False
    objectives: ClassVar[dict[str, float]] = {"text": 1.0}

    def layout(
        self, encoder: Encoder, encoded: EncodedProblem, stage: int, config: LatentReasonerConfig
    ) -> Row:
        """A problem's row at a curriculum stage: the slots of the stage, then what is still text."""
        return encoder.row(
            encoded,
            stage=stage,
            max_latent_steps=config.max_latent_steps,
            latents_per_step=config.latents_per_step,
            fixed=not config.stop_head,
        )

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> ForwardPass:
        """Question, slots one after another, then the text after them in parallel."""
        context = reasoner.start(batch["question_ids"], batch["question_mask"])
        chain = unroll(reasoner, context, batch["slot_mask"], batch["noise_keys"])
        hidden = read_text(context, reasoner.embed(batch["text_ids"]), batch["text_mask"])
        return ForwardPass(chain=chain, text_hidden=hidden)
