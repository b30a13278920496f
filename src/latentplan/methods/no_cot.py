"""No-CoT: the answer directly after the question, the lower baseline of every comparison."""

from __future__ import annotations

from latentplan.encoding.processor import EncodedProblem, ProblemProcessor, Row
from latentplan.methods.base import Method
from latentplan.modeling.configuration import LatentReasonerConfig


class NoCoT(Method):
    """Cross-entropy on the answer, with neither steps nor latents."""

    name = "no_cot"

    def layout(
        self,
        processor: ProblemProcessor,
        encoded: EncodedProblem,
        stage: int,
        config: LatentReasonerConfig,
        key: int,
    ) -> Row:
        """Lays a problem out as question and answer."""
        return processor.row_without_steps(encoded)
