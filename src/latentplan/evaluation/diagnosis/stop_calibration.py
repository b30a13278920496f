"""Does the stop head stop where the plan ends, and does its probability mean what it says?"""

from __future__ import annotations

import numpy as np
import torch

from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    SOUND,
    Figure,
    Finding,
    at_least,
    at_most,
    not_applicable,
    worst,
)

NAME = "stop_calibration"
_BINS = 10


def stop_calibration(evaluated: EvaluatedModel) -> Finding:
    """Compares latent steps used with those needed, and stop probabilities with what was due."""
    config = evaluated.model.reasoner.config
    if evaluated.model.reasoner.stop_head is None:
        return not_applicable(NAME, f"{config.method} has no stop head")
    rows = [row for row, problem in enumerate(evaluated.ordered) if problem.steps]
    if not rows or not evaluated.latents_are_steps:
        return not_applicable(NAME, "how many latents are needed is not known here")
    needed = {row: min(len(evaluated.ordered[row].steps), config.max_latent_steps) for row in rows}
    fits = figures.share("stops where a valid chain ends", [_fits(evaluated, row) for row in rows])
    error = figures.resampled(
        "calibration error of the stop probability",
        calibration_error,
        decisions(evaluated, needed),
        unit="share",
    )
    exact, calibrated = (
        at_least(fits, thresholds.STOPS_WHERE_NEEDED),
        at_most(error, thresholds.CALIBRATION_ERROR),
    )
    used = [evaluated.used_steps[row] for row in rows]
    labelled = list(needed.values())
    return Finding(
        NAME,
        worst(exact, calibrated),
        _verdict(exact, calibrated, fits, error),
        f"it must stop where a valid chain ends in {thresholds.STOPS_WHERE_NEEDED:.0%} of the problems, with "
        f"a calibration error of at most {thresholds.CALIBRATION_ERROR:.0%}",
        [
            fits,
            error,
            figures.share("as many steps as labelled", [a == b for a, b in zip(used, labelled, strict=True)]),
            figures.share("fewer than labelled", [a < b for a, b in zip(used, labelled, strict=True)]),
            figures.share("more than labelled", [a > b for a, b in zip(used, labelled, strict=True)]),
            figures.mean("latent steps used", used),
            figures.mean("latent steps labelled", labelled),
        ],
    )


@torch.no_grad()
def decisions(evaluated: EvaluatedModel, needed: dict[int, int]) -> np.ndarray:
    """Returns `[decisions, 2]`: the stop probability wherever the stop head decided, and whether a stop
    was due.

    Due is a stop before the slot after the labelled steps; the chain decides up to its own stop.
    """
    reasoner, chains = evaluated.model.reasoner, evaluated.chains
    size = reasoner.config.latents_per_step
    assert reasoner.stop_head is not None
    found = []
    for row, steps in needed.items():
        decided = min(evaluated.used_steps[row] + 1, reasoner.config.max_latent_steps)
        latents = chains.latents[row, : decided * size : size].to(reasoner.device)
        probability = torch.softmax(reasoner.stop_head(latents).float(), dim=-1)[:, 1].tolist()
        found += [(each, float(step >= steps)) for step, each in enumerate(probability)]
    return np.array(found, dtype=float)


def calibration_error(rows: np.ndarray) -> float | None:
    """Computes the expected calibration error of rows (probability, outcome), in ten bins of equal width.

    Naeini, Cooper & Hauskrecht (2015), 'Obtaining well calibrated probabilities using Bayesian binning'.
    """
    if not len(rows):
        return None
    bins = np.minimum((rows[:, 0] * _BINS).astype(int), _BINS - 1)
    sums = np.stack([np.bincount(bins, weights=rows[:, column], minlength=_BINS) for column in (0, 1)])
    return float(np.abs(sums[0] - sums[1]).sum() / len(rows))


def _fits(evaluated: EvaluatedModel, row: int) -> bool:
    most, problem = evaluated.model.reasoner.config.max_latent_steps, evaluated.ordered[row]
    return evaluated.used_steps[row] in {min(len(plan), most) for plan in problem.plans or (problem.steps,)}


def _verdict(exact: str, calibrated: str, fits: Figure, error: Figure) -> str:
    where = {
        SOUND: "it stops where the plan ends",
        FAILED: "it often stops elsewhere than the plan ends",
    }.get(exact, "whether it stops where the plan ends is not decided")
    how = {SOUND: "its probability can be taken at its word", FAILED: "its probability is off"}.get(
        calibrated, "whether its probability can be trusted is not decided"
    )
    return f"{where} ({fits.text}); {how} (error {error.text})"
