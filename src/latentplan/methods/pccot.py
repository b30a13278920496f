"""PCCoT (arXiv:2506.18582): latents refined in parallel by Jacobi iterations, trained by CODI's objectives.

At first every slot holds a placeholder. Each iteration reads all latents in one pass, and the hidden states
before them give the latents of the next iteration. With as many iterations as latents the result is that of
the sequential process.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentplan.common.plugins import setting
from latentplan.methods.codi import CODI
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.decoding_state import Lookahead
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Temperature
from latentplan.modeling.thinking import Block, Given, ThinkingProcess

BLOCKS = ("chain", "step")
MOST_ITERATIONS = 4096


@dataclass(frozen=True)
class JacobiSettings:
    """The settings of `Jacobi`.

    Raises:
        ValueError: one is out of range.
    """

    iterations: int = setting(3, "T, passes that refine the latents of a block, from 1 to 4096")
    block: str = setting(
        "chain",
        "latents that are refined together: chain for all slots, as in the paper, or step for those of a "
        "step, with a stop decision before each",
    )
    placeholder: int | None = setting(
        None, "id of the token in every slot of the first iteration; absent: <|start-latent|>"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= MOST_ITERATIONS:
            raise ValueError(
                f"iterations must be a whole number from 1 to {MOST_ITERATIONS}, got {self.iterations!r}"
            )
        if self.placeholder is not None and self.placeholder < 0:
            raise ValueError(f"placeholder must be a token's id, got {self.placeholder!r}")
        if self.block not in BLOCKS:
            raise ValueError(f"block must be one of {', '.join(BLOCKS)}, got {self.block!r}")


class Jacobi(ThinkingProcess):
    """Refines the latents of a block together.

    All iterations but the last take the means, so the latents of a Gaussian head are independent given the
    question (`chain`), or given the steps before theirs (`step`), and their density is exact.
    """

    settings_class = JacobiSettings

    def __init__(self, settings: JacobiSettings):
        super().__init__()
        self.settings = settings

    def block_size(self, config: LatentReasonerConfig) -> int:
        """Returns the number of all slots, or of the slots of a step."""
        return config.num_slots if self.settings.block == "chain" else config.latents_per_step

    def draft_columns(self, slots: int, latents_per_step: int) -> int:
        """Counts T drafts of all latents of a block but the last."""
        size = min(slots, slots if self.settings.block == "chain" else latents_per_step)
        return self.settings.iterations * (slots - -(-slots // size)) if size else 0

    def next_block(
        self,
        model: LatentReasoner,
        state: Lookahead,
        size: int,
        noise: Tensor | None,
        temperature: Temperature,
        given: Given | None,
    ) -> Block:
        """Draws a block of latents; clamped ones are in their slots in every iteration."""
        token = self.settings.placeholder
        token = model.config.start_latent_token_id if token is None else token
        ids = torch.full((1, 1), token or 0, device=model.device)
        latents = model.embed(ids).float().expand(state.rows, size, -1)
        clamped = None if given is None else given.in_drafts()
        if clamped is not None:
            latents = clamped.put(latents)
        for _ in range(self.settings.iterations - 1):
            latents = self.draw(model, state.hidden_before(latents[:, :-1]), None, 0.0, clamped).latents
        return self.draw(model, state.hidden_before(latents[:, :-1]), noise, temperature, given)


class PCCoT(CODI):
    """CODI's objectives on latents that are refined in parallel."""

    name = "pccot"
    thinking = "latentplan.methods.pccot:Jacobi"
