"""Which plan the latents hold: the labelled one, another valid one, or none; and how many different ones."""

from __future__ import annotations

from collections.abc import Sequence

from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis import findings as thresholds
from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    SOUND,
    Figure,
    Finding,
    at_least,
    not_applicable,
)
from latentplan.modeling.sampling import Sampling
from latentplan.problems.minigsm.solution_chains import MAX_PLANS
from latentplan.problems.problem import Problem
from latentplan.rollout.decoding_accuracy import Labels
from latentplan.rollout.plan_decoding import Plan
from latentplan.rollout.solve import solve

NAME = "plan_coverage"


def plan_coverage(evaluated: EvaluatedModel) -> Finding:
    """Returns the greedy plan against all valid ones, and the different valid plans among sampled ones."""
    config = evaluated.model.reasoner.config
    if evaluated.model.step_decoder is None and not config.written_steps:
        return not_applicable(NAME, f"{config.method} has no step decoder, and writes no steps")
    rows = [row for row, problem in enumerate(evaluated.ordered) if _knows_all(problem)]
    if not rows:
        return not_applicable(
            NAME, "all valid plans are known of minigsm's problems alone, and these are others"
        )
    problems = [evaluated.ordered[row] for row in rows]
    valid, labelled = _valid_plans(evaluated, problems, True), _valid_plans(evaluated, problems, False)
    greedy = [tuple(evaluated.greedy.solutions[row].plan or ()) for row in rows]
    among = [plan in known for plan, known in zip(greedy, valid, strict=True)]
    as_labelled = [plan in known for plan, known in zip(greedy, labelled, strict=True)]
    correct = [evaluated.correct[row] for row in rows]
    explained = figures.share(
        "right answers with a valid plan", [plan for plan, hit in zip(among, correct, strict=True) if hit]
    )
    status = at_least(explained, thresholds.VALID_PLANS)
    several = [row for row, known in enumerate(valid) if len(known) > 1]
    sampled = _sampled(evaluated, problems, valid, several)
    return Finding(
        NAME,
        status,
        _verdict(status, explained, sampled),
        f"at least {thresholds.VALID_PLANS:.0%} of the right answers must come with a valid plan",
        [
            explained,
            figures.share("greedy plan: the labelled one", as_labelled),
            figures.share(
                "greedy plan: another valid one",
                [a and not b for a, b in zip(among, as_labelled, strict=True)],
            ),
            figures.share("greedy plan: none of them", [not a for a in among]),
            figures.share(
                "greedy plan, where several are valid: the labelled one",
                [as_labelled[row] for row in several],
            ),
            *sampled,
        ],
    )


def _knows_all(problem: Problem) -> bool:
    """Returns whether every valid plan is listed; a problem with as many as can be listed may have more."""
    return problem.plans is not None and len(problem.plans) < MAX_PLANS


def _valid_plans(
    evaluated: EvaluatedModel, problems: Sequence[Problem], all_plans: bool
) -> list[set[tuple[str, ...]]]:
    labels = Labels(evaluated.model, problems, all_plans=all_plans)
    return [{tuple(chain) for chain in chains} for chains in labels.chains]


def _sampled(
    evaluated: EvaluatedModel,
    problems: Sequence[Problem],
    valid: Sequence[set[tuple[str, ...]]],
    several: Sequence[int],
) -> list[Figure]:
    """Counts, of the problems with several valid plans, how many of these plans k samples reach."""
    count = evaluated.num_generations
    if count < 2 or not several:
        return []
    solutions = solve(
        evaluated.model,
        [problems[row].question for row in several],
        Sampling(1.0, 1.0, evaluated.max_new_tokens),
        seed=evaluated.seed,
        num_generations=count,
        batch_size=max(1, evaluated.batch_size // count),
    )
    plans: list[list[Plan]] = [[each.plan or [] for each in group] for group in solutions]
    known = [valid[row] for row in several]
    hits = [
        [tuple(plan) for plan in group if tuple(plan) in options]
        for group, options in zip(plans, known, strict=True)
    ]
    return [
        figures.mean(
            f"where several are valid: different valid plans in {count} samples", [len(set(h)) for h in hits]
        ),
        figures.mean(
            f"where several are valid: as many as {count} samples could hold",
            [min(count, len(k)) for k in known],
        ),
        figures.mean("where several are valid: valid plans", [len(k) for k in known]),
        figures.mean(
            "where several are valid: sampled plans that are valid", [len(h) / count for h in hits], "share"
        ),
    ]


def _verdict(status: str, explained: Figure, sampled: Sequence[Figure]) -> str:
    text = {
        SOUND: f"the plan explains the answer: {explained.text} of the right answers come with a valid one",
        FAILED: "the plan does not explain the answer: only "
        f"{explained.text} of the right answers come with a valid "
        "one",
    }.get(status, f"not decided: {explained.text} of the right answers come with a valid plan")
    if explained.estimate is None:
        text = "no answer is correct, so no plan can explain one"
    if not sampled:
        return text
    found, most = (figure.estimate or 0.0 for figure in sampled[:2])
    return (
        f"{text}; samples reach {found:.2f} different valid plans a question, of {most:.2f} that they could"
    )
