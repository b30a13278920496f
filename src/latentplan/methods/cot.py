"""Written chain of thought: the model writes every step, then the answer."""

from __future__ import annotations

from latentplan.encoding.processor import EncodedProblem, ProblemProcessor, Row
from latentplan.methods.base import Method
from latentplan.modeling.configuration import LatentReasonerConfig


class CoT(Method):
    """Cross-entropy on steps and answer; no latents."""

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
        """Stage 0, whatever the curriculum says."""
        return processor.row(encoded, stage=0, max_latent_steps=0, latents_per_step=1, fixed=False)
