"""Where the answer comes from: the last latent step, all of them, or what is computed after them."""

from __future__ import annotations

from collections.abc import Sequence

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
    not_applicable,
)
from latentplan.rollout.interventions import (
    Intervention,
    all_but_last_step,
    first_steps,
    last_step_only,
    reversed_steps,
    rotated_steps,
)

NAME = "reading"
_MOST_CUTS = 12


def reading(evaluated: EvaluatedModel) -> Finding:
    """Measures accuracy when the chain is cut off, reduced to its last step, or reordered."""
    config = evaluated.model.reasoner.config
    if not evaluated.has_latents:
        return not_applicable(NAME, f"{config.method} has no latents to cut off")
    size, steps = config.latents_per_step, evaluated.used_steps
    several = [row for row, used in enumerate(steps) if used > 1]
    if not several:
        return not_applicable(
            NAME, "no chain has two latent steps, so there is nothing to cut off or reorder"
        )
    changed: dict[str, Intervention] = {
        "only the last step": last_step_only(size),
        "all but the last step": all_but_last_step(size),
        "reversed": reversed_steps(size),
        "last step first": rotated_steps(size),
    }
    correct = evaluated.correct
    answered = {name: evaluated.judge(evaluated.completions(change)) for name, change in changed.items()}
    kept = {name: _of(hits, several) for name, hits in answered.items()}
    own = _of(correct, several)
    return Finding(
        NAME,
        NOTED,
        _verdict(own, kept),
        f"a part of the chain suffices if it keeps {thresholds.KEPT_BY_LAST_STEP:.0%} of the accuracy",
        [
            figures.share("two steps or more: intact", own),
            *(figures.share(f"two steps or more: {name}", hits) for name, hits in kept.items()),
            *_truncated(evaluated, correct, steps),
        ],
    )


def _truncated(evaluated: EvaluatedModel, correct: Sequence[bool], steps: Sequence[int]) -> list[Figure]:
    """Measures the accuracy of chains of n steps with the first j kept, for each n and j."""
    size = evaluated.model.reasoner.config.latents_per_step
    longest = max(steps)
    cuts = min(longest, _MOST_CUTS)
    counts = [index * longest // cuts for index in range(cuts)]
    found = {count: evaluated.judge(evaluated.completions(first_steps(count, size))) for count in counts}
    table: list[Figure] = []
    for length in sorted(set(steps) - {0}):
        rows = [row for row, used in enumerate(steps) if used == length]
        table += [
            figures.share(f"chains of {length}: first {count} kept", _of(found[count], rows))
            for count in counts
            if count < length
        ]
        table.append(figures.share(f"chains of {length}: all kept", _of(correct, rows)))
    return table


def _verdict(own: Sequence[bool], kept: dict[str, list[bool]]) -> str:
    needed = thresholds.KEPT_BY_LAST_STEP * sum(own) / len(own)

    def suffices(name: str) -> str:
        return at_least(figures.share("", kept[name]), needed)

    if not any(own):
        return "no answer is correct, so nothing can be seen to be lost"
    parts = []
    if suffices("all but the last step") == suffices("only the last step") == SOUND:
        parts.append(
            "no latent step is needed by itself: the answer comes from elsewhere, or from each of them"
        )
    elif suffices("all but the last step") == SOUND:
        parts.append("the last latent step is not needed: what is left of the work is done while answering")
    elif suffices("only the last step") == SOUND:
        parts.append(
            "the last latent step alone carries what the answer needs; the earlier ones serve to reach it"
        )
    elif suffices("only the last step") == FAILED:
        parts.append("the last latent step alone does not carry the answer")
    else:
        parts.append("whether the last latent step alone carries the answer is not decided")
    order = suffices("reversed")
    parts.append(
        {SOUND: "the order of the steps does not matter", FAILED: "the order of the steps matters"}.get(
            order, "whether the order of the steps matters is not decided"
        )
    )
    return "; ".join(parts)


def _of(values: Sequence[bool], rows: Sequence[int]) -> list[bool]:
    return [values[row] for row in rows]
