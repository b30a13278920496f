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

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch

from latentplan.encoding.curriculum import split_chain
from latentplan.evaluation.results import Reconstruction
from latentplan.evaluation.rollouts import GreedyChains
from latentplan.modeling.latents import unroll
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rewards.steps import equations_of
from latentplan.rollout.plans import Plan, decode_plans
from latentplan.rollout.solve import batches_by_length, question_batch

Reading = Callable[[str], object]
"""What of a step is compared: its text, or its result; None where a step has no such thing."""


class Share(NamedTuple):
    """So many right of so many; shares add up."""

    right: int
    total: int

    @property
    def value(self) -> float | None:
        """right / total; None of nothing."""
        return self.right / self.total if self.total else None


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


def teacher_reconstruction(
    model: LoadedModel, problems: Sequence[Problem], *, batch_size: int
) -> float | None:
    """The share of teacher-encoded steps that the decoder reads exactly."""
    plans = teacher_plans(model, problems, batch_size=batch_size)
    return total_share(plans, Labels(model, problems, all_plans=False).chains, text_of)


@torch.no_grad()
def teacher_plans(model: LoadedModel, problems: Sequence[Problem], *, batch_size: int) -> list[Plan]:
    """The decoded steps of each problem when it uses min(labelled steps, K) latent steps, at the means."""
    config = model.reasoner.config
    plans: list[Plan] = [[] for _ in problems]
    for places in batches_by_length([problem.question for problem in problems], batch_size):
        ids, mask = question_batch(model, [problems[place].question for place in places])
        needed = torch.tensor([len(problems[place].steps) for place in places], device=ids.device)
        slots = needed.clamp(max=config.max_latent_steps) * config.latents_per_step
        slot_mask = (torch.arange(int(slots.max()), device=ids.device) < slots.unsqueeze(1)).long()
        chain = unroll(model.reasoner, model.reasoner.start(ids, mask), slot_mask, noise_keys=None)
        assert model.step_decoder is not None
        decoded = decode_plans(model.step_decoder, model.tokenizer, chain.latents, slot_mask)
        for place, plan in zip(places, decoded, strict=True):
            plans[place] = plan
    return plans


class Labels:
    """The chains that are right for each problem, in K latent steps at most, as the tokenizer writes them.

    Attributes:
        chains: for each problem its labelled chain, or with `all_plans` every valid chain that is known.
    """

    def __init__(self, model: LoadedModel, problems: Sequence[Problem], *, all_plans: bool):
        config = model.reasoner.config
        chains = [
            [
                latent_steps(chain, config.max_latent_steps, config.step_separator)
                for chain in ((all_plans and problem.plans) or (problem.steps,))
            ]
            for problem in problems
        ]
        texts = sorted({step for options in chains for chain in options for step in chain})
        written = dict(zip(texts, _as_written(model, texts), strict=True))
        self.chains: list[list[Plan]] = [
            [[written[step] for step in chain] for chain in options] for options in chains
        ]


def latent_steps(chain: Sequence[str], max_latent_steps: int, separator: str) -> Plan:
    """The text that each latent step stands for when all of a chain is latent."""
    groups, _ = split_chain(len(chain), max_latent_steps, max_latent_steps)
    return [separator.join(chain[step] for step in group) for group in groups]


def total_share(decoded: Sequence[Plan], chains: Sequence[Sequence[Plan]], reading: Reading) -> float | None:
    """The share of right steps over all problems, each against the nearest chain; None of no steps."""
    shares = [nearest_share(plan, options, reading) for plan, options in zip(decoded, chains, strict=True)]
    return Share(sum(share.right for share in shares), sum(share.total for share in shares)).value


def nearest_share(decoded: Plan, chains: Sequence[Plan], reading: Reading) -> Share:
    """The share of right steps against the chain that gives the largest."""
    return max(
        (step_share(decoded, chain, reading) for chain in chains), key=lambda share: share.value or 0.0
    )


def step_share(decoded: Plan, chain: Plan, reading: Reading) -> Share:
    """Steps that read the same at the same place, of those of the longer chain.

    Nothing of nothing where no label has a reading.
    """
    labels = [reading(step) for step in chain]
    if all(label is None for label in labels):
        return Share(0, 0)
    pairs = zip(map(reading, decoded), labels, strict=False)
    right = sum(found is not None and found == label for found, label in pairs)
    return Share(right, max(len(decoded), len(chain)))


def text_of(step: str) -> str:
    """The text of a step, without white space around it."""
    return step.strip()


def result_of(step: str) -> Fraction | None:
    """The result of the last equation in a step; None where it has none that can be read."""
    equations = equations_of(step)
    return equations[-1].result if equations else None


def _as_written(model: LoadedModel, texts: Sequence[str]) -> list[str]:
    """Texts as they come out of the tokenizer, which may drop or add white space."""
    if not texts:
        return []
    ids = model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [text.strip() for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]
