"""Can the step decoder be trusted? Its reading of the latents against chains that are known to be right.

*Teacher-encoded*: the reasoner is made to use as many latent steps as are labelled, the latents are the
means, and each decoded step is compared with the labelled one. *Free-running*: the plan of the greedy
trajectory is compared, step by step, with the labelled chain, or with the nearest of all valid chains where
`Problem.plans` knows them; steps too few or too many count as misses.

A step is *exact* when its text is the label's as the tokenizer writes it, and has the right *result* when its
last equation has the result of the label's last equation; chains without equations are not asked for results.
A chain longer than the K latent steps has its rest in the last one, as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from latentplan.evaluation.results import Reconstruction
from latentplan.evaluation.rollouts import GreedyChains
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rewards.steps import equations_of
from latentplan.rollout.decoding_accuracy import Labels, teacher_plans, text_of, total_share


def measure_reconstruction(
    model: LoadedModel, problems: Sequence[Problem], chains: GreedyChains, *, batch_size: int
) -> Reconstruction:
    """Both reconstructions over all problems that have a labelled chain."""
    labelled = [problem for problem in problems if problem.steps]
    teacher = teacher_plans(model, labelled, batch_size=batch_size)
    free = [
        (plan, problems[place])
        for place, plan in zip(chains.places, chains.plans, strict=True)
        if plan is not None and problems[place].steps
    ]
    taught = Labels(model, labelled, all_plans=False)
    valid = Labels(model, [problem for _, problem in free], all_plans=True)
    free_plans = [plan for plan, _ in free]
    return Reconstruction(
        teacher_exact=total_share(teacher, taught.chains, text_of),
        teacher_result=total_share(teacher, taught.chains, result_of),
        free_exact=total_share(free_plans, valid.chains, text_of),
        free_result=total_share(free_plans, valid.chains, result_of),
    )


def result_of(step: str) -> Fraction | None:
    """The result of the last equation in a step; None where it has none that can be read."""
    equations = equations_of(step)
    return equations[-1].result if equations else None
