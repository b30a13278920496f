"""Does the step decoder read the latents? Its steps against chains that are known to be correct.

*Teacher-encoded*: the reasoner is made to use as many latent steps as are labelled, the latents are the
means, and each decoded step is compared with the labelled one. *Free-running*: the plan of the greedy
trajectory is compared, step by step, with the labelled chain, or with the nearest of all valid chains where
`Problem.plans` knows them; steps too few or too many count as misses. A chain longer than the K latent steps
has its rest in the last one, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from latentplan.encoding.curriculum import split_chain
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.thinking import unroll
from latentplan.problems.problem import Problem
from latentplan.rollout.plan_decoding import Plan, decode_plans
from latentplan.rollout.solve import batches_by_length, question_batch

StepPart = Callable[[str], object]
"""What of a step is compared: its text, or its result; None where a step has no such thing."""
RELIABLE_RECONSTRUCTION = 0.9
"""Below this share of exactly decoded steps, coherence says little about the latents."""


class Share(NamedTuple):
    """So many correct of so many; shares add up."""

    correct: int
    total: int

    @property
    def value(self) -> float | None:
        """Correct of all; None of nothing."""
        return self.correct / self.total if self.total else None


@dataclass(frozen=True)
class DecodedPlans:
    """The decoded steps of some problems, and the chains that are correct for each.

    Attributes:
        plans: one for each problem.
        chains: for each problem, the chains that its plan may be.
    """

    plans: Sequence[Plan]
    chains: Sequence[Sequence[Plan]]

    def shares(self, part: StepPart) -> list[Share]:
        """Returns the share of correct steps of each problem, against the nearest chain."""
        return [
            nearest_share(plan, chains, part) for plan, chains in zip(self.plans, self.chains, strict=True)
        ]

    def share(self, part: StepPart) -> Share:
        """Returns the share of correct steps over all problems, each against the nearest chain."""
        shares = self.shares(part)
        return Share(sum(share.correct for share in shares), sum(share.total for share in shares))


def teacher_encoded(
    model: LoadedModel, problems: Sequence[Problem], *, batch_size: int, stage: int | None = None
) -> DecodedPlans:
    """Decodes teacher-encoded latents, to compare with the labelled chains; `stage` as in `teacher_plans`."""
    plans = teacher_plans(model, problems, batch_size=batch_size, stage=stage)
    return DecodedPlans(plans, Labels(model, problems, all_plans=False, stage=stage).chains)


def free_running(model: LoadedModel, problems: Sequence[Problem], plans: Sequence[Plan]) -> DecodedPlans:
    """Takes the plans of greedy trajectories, to compare with every valid chain that is known."""
    return DecodedPlans(plans, Labels(model, problems, all_plans=True).chains)


def teacher_share(
    model: LoadedModel, problems: Sequence[Problem], *, batch_size: int, stage: int | None = None
) -> Share:
    """Counts the teacher-encoded steps that the decoder reads exactly; `stage` as in `teacher_plans`."""
    return teacher_encoded(model, problems, batch_size=batch_size, stage=stage).share(text_of)


@torch.no_grad()
def teacher_plans(
    model: LoadedModel, problems: Sequence[Problem], *, batch_size: int, stage: int | None = None
) -> list[Plan]:
    """Decodes the steps of each problem when it uses min(labelled steps, K) latent steps, at the means.

    At an earlier `stage` of the curriculum it uses that many latent steps at most.
    """
    config = model.reasoner.config
    most = config.max_latent_steps if stage is None else min(stage, config.max_latent_steps)
    plans: list[Plan] = [[] for _ in problems]
    for indices in batches_by_length([problem.question for problem in problems], batch_size):
        ids, mask = question_batch(model, [problems[index].question for index in indices])
        needed = torch.tensor([len(problems[index].steps) for index in indices], device=ids.device)
        slots = needed.clamp(max=most) * config.latents_per_step
        slot_mask = (torch.arange(int(slots.max()), device=ids.device) < slots.unsqueeze(1)).long()
        chain = unroll(model.reasoner, model.reasoner.start(ids, mask), slot_mask)
        assert model.step_decoder is not None
        decoded = decode_plans(model.step_decoder, model.tokenizer, chain.latents, slot_mask)
        for index, plan in zip(indices, decoded, strict=True):
            plans[index] = plan
    return plans


class Labels:
    """The chains that are correct for each problem, in K latent steps at most, as the tokenizer writes them.

    Attributes:
        chains: for each problem its labelled chain, or with `all_plans` every valid chain that is known.
    """

    def __init__(
        self, model: LoadedModel, problems: Sequence[Problem], *, all_plans: bool, stage: int | None = None
    ):
        config = model.reasoner.config
        chains = [
            [
                latent_steps(chain, config.max_latent_steps, config.step_separator, stage)
                for chain in ((all_plans and problem.plans) or (problem.steps,))
            ]
            for problem in problems
        ]
        texts = sorted({step for options in chains for chain in options for step in chain})
        written = dict(zip(texts, _as_written(model, texts), strict=True))
        self.chains: list[list[Plan]] = [
            [[written[step] for step in chain] for chain in options] for options in chains
        ]


def latent_steps(
    chain: Sequence[str], max_latent_steps: int, separator: str, stage: int | None = None
) -> Plan:
    """Returns the text that each latent step stands for, of a whole chain or its first `stage` steps."""
    groups, _ = split_chain(len(chain), max_latent_steps if stage is None else stage, max_latent_steps)
    return [separator.join(chain[step] for step in group) for group in groups]


def nearest_share(decoded: Plan, chains: Sequence[Plan], part: StepPart) -> Share:
    """Returns the share of correct steps against the chain that gives the largest."""
    return max((step_share(decoded, chain, part) for chain in chains), key=lambda share: share.value or 0.0)


def step_share(decoded: Plan, chain: Plan, part: StepPart) -> Share:
    """Counts the steps that are equal at the same index, of those of the longer chain.

    Nothing of nothing where no label has such a part.
    """
    labels = [part(step) for step in chain]
    if all(label is None for label in labels):
        return Share(0, 0)
    pairs = zip(map(part, decoded), labels, strict=False)
    correct = sum(found is not None and found == label for found, label in pairs)
    return Share(correct, max(len(decoded), len(chain)))


def text_of(step: str) -> str:
    """Returns the text of a step, without white space around it."""
    return step.strip()


def _as_written(model: LoadedModel, texts: Sequence[str]) -> list[str]:
    """Returns texts as they come out of the tokenizer, which may drop or add white space."""
    if not texts:
        return []
    ids = model.processor.steps(texts)
    return [text.strip() for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]
