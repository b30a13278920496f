"""Does the model think longer about harder questions, and no longer than it needs to?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentplan.common.run_files import read_metrics
from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    NOTED,
    SOUND,
    Figure,
    Finding,
    at_least,
    at_most,
    not_applicable,
    worst,
)

NAME = "overthinking"
_LOGGED = ("latents/mean_length", "completions/mean_length")


def overthinking(evaluated: EvaluatedModel) -> Finding:
    """Compares latents with labelled steps, with tokens, and their course over RL where a run logged it."""
    config = evaluated.model.reasoner.config
    if not evaluated.has_latents:
        return not_applicable(NAME, f"{config.method} has no latents")
    rows = [row for row, problem in enumerate(evaluated.ordered) if problem.steps]
    difficulty = np.array([len(evaluated.ordered[row].steps) for row in rows], dtype=float)
    latents = np.array([evaluated.greedy.solutions[row].num_latents for row in rows], dtype=float)
    tokens = np.array([evaluated.greedy.solutions[row].num_tokens for row in rows], dtype=float)
    if len(set(difficulty)) < 2:
        return not_applicable(NAME, "all problems are equally hard, as far as labelled chains tell")
    if len(set(latents)) == 1 and evaluated.model.reasoner.stop_head is None:
        text = f"every question gets {latents[0]:g} latents: their number says nothing about difficulty"
        return Finding(NAME, NOTED, text, figures=[figures.mean("latents a question", latents.tolist())])
    together = np.stack([difficulty, latents], axis=1)
    follows = figures.resampled("correlation of latents with labelled steps", figures.correlation, together)
    excess = _excess(evaluated, rows) if evaluated.latents_are_steps else None
    length = at_least(follows, thresholds.LENGTH_CORRELATION)
    surplus = SOUND if excess is None else at_most(excess, thresholds.EXCESS_STEPS)
    return Finding(
        NAME,
        worst(length, surplus),
        _verdict(length, surplus, follows, excess),
        _threshold(excess),
        [
            follows,
            figures.resampled("latents for each labelled step more (slope)", figures.slope, together),
            figures.resampled(
                "tokens for each labelled step more (slope)",
                figures.slope,
                np.stack([difficulty, tokens], axis=1),
            ),
            *([excess] if excess is not None else []),
            *(
                figures.mean(f"latents, {steps:g} labelled steps", latents[difficulty == steps].tolist())
                for steps in sorted(set(difficulty))
            ),
            *over_training(evaluated.run),
        ],
    )


def over_training(run: Path | None) -> list[Figure]:
    """Reads the first and last logged means of latents and text tokens of a run; nothing without them."""
    rows = [] if run is None else read_metrics(run)
    found = []
    for name in _LOGGED:
        values = [(row["step"], row[name]) for row in rows if name in row and "step" in row]
        if len(values) > 1:
            found += [
                Figure(f"over training: {name} at step {step}", float(value))
                for step, value in values[:: len(values) - 1]
            ]
    return found


def _excess(evaluated: EvaluatedModel, rows: list[int]) -> Figure:
    """Computes the latent steps beyond those labelled (at most K); too few count negative."""
    most = evaluated.model.reasoner.config.max_latent_steps
    surplus = [evaluated.used_steps[row] - min(len(evaluated.ordered[row].steps), most) for row in rows]
    return figures.mean("latent steps beyond the labelled ones", surplus)


def _threshold(excess: Figure | None) -> str:
    text = f"the correlation must reach {thresholds.LENGTH_CORRELATION:g}"
    if excess is None:
        return text
    return f"{text}, and at most {thresholds.EXCESS_STEPS:g} latent steps too many may be used on average"


def _verdict(length: str, surplus: str, follows: Figure, excess: Figure | None) -> str:
    text = {
        SOUND: f"harder questions get more latents (correlation {follows.text})",
        FAILED: f"the number of latents does not follow difficulty (correlation {follows.text})",
    }.get(
        length,
        f"whether the number of latents follows difficulty is not decided (correlation {follows.text})",
    )
    if excess is None:
        return text
    beyond = {
        SOUND: f"no overthinking: {excess.text} latent steps beyond the labelled ones",
        FAILED: f"overthinking: {excess.text} latent steps beyond the labelled ones",
    }.get(
        surplus, f"whether it overthinks is not decided: {excess.text} latent steps beyond the labelled ones"
    )
    return f"{text}; {beyond}"
