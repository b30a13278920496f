"""What the step decoder reads in latents, step by step, against chains that are known to be right.

*Teacher-encoded*: the reasoner is made to use as many latent steps as are labelled, the latents are the
means, and each decoded step is compared with the labelled one. A chain longer than the K latent steps has its
rest in the last one, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from latentplan.encoding.curriculum import split_chain
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.thinking import unroll
from latentplan.problems.problem import Problem
from latentplan.rollout.plan_decoding import Plan, decode_plans
from latentplan.rollout.solve import batches_by_length, question_batch

Reading = Callable[[str], object]
"""What of a step is compared: its text, or its result; None where a step has no such thing."""
RELIABLE_RECONSTRUCTION = 0.9
"""Below this share of exactly decoded steps, coherence says little about the latents."""


class Share(NamedTuple):
    """So many right of so many; shares add up."""

    right: int
    total: int

    @property
    def value(self) -> float | None:
        """right / total; None of nothing."""
        return self.right / self.total if self.total else None


def teacher_share(
    model: LoadedModel, problems: Sequence[Problem], *, batch_size: int, stage: int | None = None
) -> Share:
    """How many teacher-encoded steps the decoder reads exactly; `stage` as in `teacher_plans`."""
    plans = teacher_plans(model, problems, batch_size=batch_size, stage=stage)
    return sum_shares(plans, Labels(model, problems, all_plans=False, stage=stage).chains, text_of)


@torch.no_grad()
def teacher_plans(
    model: LoadedModel, problems: Sequence[Problem], *, batch_size: int, stage: int | None = None
) -> list[Plan]:
    """The decoded steps of each problem when it uses min(labelled steps, K) latent steps, at the means.

    At an earlier `stage` of the curriculum it uses that many latent steps at most.
    """
    config = model.reasoner.config
    most = config.max_latent_steps if stage is None else min(stage, config.max_latent_steps)
    plans: list[Plan] = [[] for _ in problems]
    for places in batches_by_length([problem.question for problem in problems], batch_size):
        ids, mask = question_batch(model, [problems[place].question for place in places])
        needed = torch.tensor([len(problems[place].steps) for place in places], device=ids.device)
        slots = needed.clamp(max=most) * config.latents_per_step
        slot_mask = (torch.arange(int(slots.max()), device=ids.device) < slots.unsqueeze(1)).long()
        chain = unroll(model.reasoner, model.reasoner.start(ids, mask), slot_mask)
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
    """The text that each latent step stands for, all of a chain being latent, or its first `stage` steps."""
    groups, _ = split_chain(len(chain), max_latent_steps if stage is None else stage, max_latent_steps)
    return [separator.join(chain[step] for step in group) for group in groups]


def sum_shares(decoded: Sequence[Plan], chains: Sequence[Sequence[Plan]], reading: Reading) -> Share:
    """The right steps over all problems, each against the nearest chain."""
    shares = [nearest_share(plan, options, reading) for plan, options in zip(decoded, chains, strict=True)]
    return Share(sum(share.right for share in shares), sum(share.total for share in shares))


def total_share(decoded: Sequence[Plan], chains: Sequence[Sequence[Plan]], reading: Reading) -> float | None:
    """The share of right steps over all problems, each against the nearest chain; None of no steps."""
    return sum_shares(decoded, chains, reading).value


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


def _as_written(model: LoadedModel, texts: Sequence[str]) -> list[str]:
    """Texts as they come out of the tokenizer, which may drop or add white space."""
    if not texts:
        return []
    ids = model.processor.steps(texts)
    return [text.strip() for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]
