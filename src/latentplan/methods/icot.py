"""iCoT (arXiv:2405.14838): an explicit chain of thought that is removed from the left, token by token.

There are no latents. Stage k leaves out the first k tokens of the chain, and from stage K on all of them (the
paper's threshold; `max_latent_steps` in a recipe). Some rows lose a few more tokens, which prepares the
model for the next stage ('removal smoothing', section 3).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from latentplan.common.plugins import setting
from latentplan.encoding.processor import EncodedProblem, ProblemProcessor, Row
from latentplan.methods.base import Method
from latentplan.modeling.configuration import LatentReasonerConfig


@dataclass(frozen=True)
class ICoTSettings:
    """The settings of iCoT.

    Raises:
        ValueError: `removal_smoothing` is not above 0.
    """

    removal_smoothing: float = setting(
        4.0, "λ of the removal smoothing: o more tokens are left out with probability (1 - e^-λ) e^-λo"
    )

    def __post_init__(self) -> None:
        if not self.removal_smoothing > 0:
            raise ValueError(f"removal_smoothing must be above 0, got {self.removal_smoothing!r}")


class ICoT(Method):
    """Cross-entropy on the tokens of the chain of thought that are left, and on the answer."""

    name = "icot"
    settings_class = ICoTSettings
    settings: ICoTSettings

    def stages(self, max_latent_steps: int) -> list[int]:
        """Returns stages 0 to K: the whole chain, then one token fewer at each stage."""
        return list(range(max_latent_steps + 1))

    def longest_stage(self, max_latent_steps: int) -> int:
        """Returns stage 0, in which the whole chain is text."""
        return 0

    def layout(
        self,
        processor: ProblemProcessor,
        encoded: EncodedProblem,
        stage: int,
        config: LatentReasonerConfig,
        key: int,
    ) -> Row:
        """Lays a problem out as question, what is left of the chain, and answer."""
        row = processor.row(encoded, stage=0, max_latent_steps=0, latents_per_step=1, fixed=False)
        length = len(row.text) - len(encoded.answer)
        removed = length if stage >= config.max_latent_steps else stage + self.offset(key)
        return replace(row, text=row.text[min(removed, length) :])

    def offset(self, key: int) -> int:
        """Draws how many more tokens a row loses, from a geometric distribution; `key` alone decides."""
        return math.floor(-math.log(1.0 - random.Random(key).random()) / self.settings.removal_smoothing)
