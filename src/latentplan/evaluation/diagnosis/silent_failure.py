"""Would the answers be as good without what the latents say? The question that arXiv:2512.21711 asks."""

from __future__ import annotations

from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    SOUND,
    UNCLEAR,
    Finding,
    at_least,
    not_applicable,
)
from latentplan.rollout.interventions import same_norm_noise, zero

NAME = "silent_failure"


def silent_failure(evaluated: EvaluatedModel) -> Finding:
    """Measures accuracy with the latents set to zero, replaced by noise, and exchanged between questions.

    The verdict rests on the exchange alone: zeros and noise are nothing that the model has ever read, and
    may break an answer that does not need what the latents say. Exchanged latents are as good as its own,
    and as many, but they belong to another question.
    """
    if not evaluated.has_latents:
        return not_applicable(NAME, f"{evaluated.model.reasoner.config.method} has no latents to replace")
    if len(evaluated.problems) < 2:
        return not_applicable(NAME, "with one problem there is no other question to take latents from")
    correct = evaluated.correct
    replaced = {
        "zero": evaluated.judge(evaluated.completions(zero)),
        "noise of the same norm": evaluated.judge(evaluated.completions(same_norm_noise)),
        "another question's": evaluated.judge(evaluated.exchanged),
    }
    accuracy = figures.share("accuracy: latents intact", correct)
    lost = figures.drop("lost: another question's", correct, replaced["another question's"])
    bound = thresholds.USED_SHARE * (accuracy.estimate or 0)
    status = at_least(lost, bound) if any(correct) else UNCLEAR
    return Finding(
        NAME,
        status,
        _verdict(status, accuracy.text, figures.share("", replaced["another question's"]).text),
        f"exchanging latents between questions must cost {thresholds.USED_SHARE:.0%} of the accuracy "
        f"(here {100 * bound:.1f} points), or they are ornament",
        [
            accuracy,
            *(figures.share(f"accuracy: {name}", hits) for name, hits in replaced.items()),
            *(figures.drop(f"lost: {name}", correct, hits) for name, hits in replaced.items()),
            figures.share("answers that change: another question's", _changed(evaluated)),
        ],
    )


def _changed(evaluated: EvaluatedModel) -> list[bool]:
    own = [solution.completion for solution in evaluated.greedy.solutions]
    kinds = [problem.kind for problem in evaluated.ordered]
    rows = zip(own, evaluated.exchanged, kinds, strict=True)
    return [kind.extract(before) != kind.extract(after) for before, after, kind in rows]


def _verdict(status: str, intact: str, exchanged: str) -> str:
    if status == SOUND:
        return f"the answers need the latents: accuracy {intact}, with another question's latents {exchanged}"
    if status == FAILED:
        return (
            f"silent failure: accuracy is {intact}, and with another question's latents {exchanged}; "
            "what the latents say does not matter"
        )
    return (
        f"not decided: accuracy is {intact}, with another question's latents {exchanged}; more problems, or "
        "a model that answers more of them, would tell"
    )
