"""Explicit chain of thought: the model writes every step as text, then the answer."""

from __future__ import annotations

from latentplan.encoding.processor import EncodedProblem, ProblemProcessor, Row
from latentplan.methods.base import Method
from latentplan.modeling.configuration import LatentReasonerConfig


class CoT(Method):
    """Cross-entropy on the steps and the answer, without latents."""

    name = "cot"
    written_steps = True

    def layout(
        self,
        processor: ProblemProcessor,
        encoded: EncodedProblem,
        stage: int,
        config: LatentReasonerConfig,
        key: int,
    ) -> Row:
        """Lays a problem out as question, steps and answer, whatever the stage."""
        return processor.row(encoded, stage=0, max_latent_steps=0, latents_per_step=1, fixed=False)
