"""Can the plans be read at all? Everything that is said of decoded steps stands on this."""

from __future__ import annotations

import numpy as np

from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import FAILED, SOUND, Figure, Finding, at_least, not_applicable
from latentplan.rewards.plan_graph import result_of
from latentplan.rollout.decoding_accuracy import (
    DecodedPlans,
    StepPart,
    free_running,
    teacher_encoded,
    text_of,
)

NAME = "reconstruction"


def reconstruction(evaluated: EvaluatedModel) -> Finding:
    """Measures the steps that are read back, teacher-encoded and free-running."""
    if evaluated.model.step_decoder is None:
        return not_applicable(NAME, f"{evaluated.model.reasoner.config.method} has no step decoder")
    rows = [row for row, problem in enumerate(evaluated.ordered) if problem.steps]
    if not rows:
        return not_applicable(NAME, "no problem has a labelled chain to compare with")
    labelled = [evaluated.ordered[row] for row in rows]
    teacher = teacher_encoded(evaluated.model, labelled, batch_size=evaluated.batch_size)
    free = free_running(
        evaluated.model, labelled, [evaluated.greedy.solutions[row].plan or [] for row in rows]
    )
    exact = _share("teacher-encoded: exact", teacher, text_of)
    status = at_least(exact, thresholds.RECONSTRUCTION)
    return Finding(
        NAME,
        status,
        _verdict(status, exact),
        f"the decoder must read {thresholds.RECONSTRUCTION:.0%} of the teacher-encoded steps exactly",
        [
            exact,
            _share("teacher-encoded: right result", teacher, result_of),
            _share("free-running: exact", free, text_of),
            _share("free-running: right result", free, result_of),
        ],
    )


def _share(name: str, decoded: DecodedPlans, part: StepPart) -> Figure:
    """Returns the share of correct steps, with an interval over problems, whose steps are not independent."""
    shares = np.array(decoded.shares(part), dtype=float)
    return figures.resampled(name, figures.ratio, shares, unit="share")


def _verdict(status: str, exact: Figure) -> str:
    if status == SOUND:
        return f"the decoder reads {exact.text} of the latent steps exactly"
    if status == FAILED:
        return (
            f"the decoder reads only {exact.text} of the latent steps exactly: trust neither decoded plans "
            "nor coherence"
        )
    return f"the decoder reads {exact.text} of the latent steps exactly, too close to the threshold to tell"
