"""What RL learns from: rollouts with their texts, split into minibatches of whole groups.

Reference answers, from the data, can be scored instead of sampled ones or with them. Each becomes one of the
answers of each chain of latents of its question. It was not sampled, so it is no action: only its
log-likelihood given the latents is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import torch
from transformers import Trainer

from latentplan.encoding.processor import pad_right
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet
from latentplan.rewards.reward_set import Rewarded
from latentplan.rollout.logprobs import Scores
from latentplan.rollout.plan_decoding import PlanTokens, sample_plans
from latentplan.rollout.solve import Solution, read_solutions
from latentplan.rollout.trajectories import Trajectories, widened
from latentplan.training.distributed import same_everywhere
from latentplan.training.latent_gradients import LogProbs


@dataclass(frozen=True)
class KnownAnswers:
    """The right answer of each question, eos included.

    Attributes:
        ids, mask: `[questions, tokens]`, right-padded.
    """

    ids: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]], pad_token_id: int) -> KnownAnswers:
        """From token ids, one list a question."""
        ids = pad_right([list(answer) for answer in answers], pad_token_id)
        lengths = torch.tensor([len(answer) for answer in answers])
        return cls(ids, (torch.arange(ids.shape[1])[None] < lengths[:, None]).long())

    @classmethod
    def of_problems(cls, model: LoadedModel, problems: Sequence[Problem]) -> KnownAnswers:
        """As the model's processor writes them."""
        answers = [encoded.answer for encoded in model.processor.encode_all(problems)]
        return cls.of(answers, model.tokenizer.pad_token_id)

    def select(self, questions: slice) -> KnownAnswers:
        """Those of a range of questions, without the columns that none of them uses."""
        mask = self.mask[questions]
        tokens = int(mask.sum(dim=1).max())
        return KnownAnswers(self.ids[questions, :tokens], mask[:, :tokens])

    def padded(self, tokens: int) -> KnownAnswers:
        """With unused columns up to `tokens`."""
        return KnownAnswers(widened(self.ids, tokens), widened(self.mask, tokens))


def instead_of_samples(trajectories: Trajectories, known: KnownAnswers) -> Trajectories:
    """Chains of latents with the right answer as their only one."""
    ids, mask = (
        each.repeat_interleave(trajectories.draws, dim=0).to(trajectories.answer_ids.device)
        for each in (known.ids, known.mask)
    )
    return replace(
        trajectories,
        answer_ids=ids,
        answer_mask=mask,
        answer_log_probs=torch.zeros_like(mask, dtype=torch.float32),
        finished=torch.ones(len(ids), dtype=torch.bool, device=ids.device),
        input_ids=None,
        input_weights=None,
    )


def beside_samples(trajectories: Trajectories, known: KnownAnswers) -> Trajectories:
    """Chains of latents with the right answer as their last one, after those that were sampled."""
    right = instead_of_samples(trajectories, known)
    tokens = max(trajectories.answer_ids.shape[1], right.answer_ids.shape[1])

    def joined(name: str) -> torch.Tensor:
        sampled, last = getattr(trajectories, name), getattr(right, name)
        if sampled.dim() == 2:
            sampled, last = widened(sampled, tokens), widened(last, tokens)
        by_chain = sampled.unflatten(0, (-1, trajectories.answers))
        return torch.cat([by_chain, last.unsqueeze(1)], dim=1).flatten(0, 1)

    names = ("answer_ids", "answer_mask", "answer_log_probs", "finished")
    return replace(trajectories, **{name: joined(name) for name in names})


def apart(scores: Scores, sampled: Trajectories) -> tuple[Scores, torch.Tensor]:
    """Undoes `beside_samples` in what scoring gave: the scores of what was sampled, and the right answers'.

    Returns:
        the scores, and `[chains]`, the log-likelihood of each chain's right answer, summed over tokens.
    """
    tokens = sampled.answer_ids.shape[1]

    def by_chain(values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(0, (-1, sampled.answers + 1))

    answers, entropy = (
        by_chain(values)[:, :-1].flatten(0, 1)[:, :tokens] for values in (scores.answers, scores.entropy)
    )
    return replace(scores, answers=answers, entropy=entropy), by_chain(scores.answers)[:, -1].sum(dim=1)


def check_answers(asking: str, *problems: Sequence[Problem]) -> None:
    """Raises ValueError for a problem without an answer, which `asking`, a setting, has no use for."""
    for problem in chain(*problems):
        if not problem.answer:
            raise ValueError(f"{asking} needs answers, and there is none to {problem.question!r}")


@dataclass
class Minibatch:
    """Trajectories and what is learned from them.

    Attributes:
        trajectories: whole groups.
        advantages: `[trajectories]`.
        plans: of the chains, where plans are drawn.
        known: the reference answers, where their likelihood is requested.
        old: log-probabilities before the first update that follows the rollout; None where no other does, and
            those of the pass itself are the old ones.
        has_reward: `[trajectories]`, 0 where no reward applies; None where all have one.
        num_items: valid actions of each kind in a minibatch, on average over the minibatches of the rollout
            and the devices (scalars); empty where this minibatch is the whole rollout.
    """

    trajectories: Trajectories
    advantages: torch.Tensor
    plans: PlanTokens | None = None
    known: KnownAnswers | None = None
    num_items: Mapping[str, torch.Tensor] = field(default_factory=dict)
    old: LogProbs | None = None
    has_reward: torch.Tensor | None = None

    @cached_property
    def scored(self) -> Trajectories:
        """The trajectories that the policy scores: the sampled ones, and those with reference answers."""
        return self.trajectories if self.known is None else beside_samples(self.trajectories, self.known)


@dataclass(frozen=True)
class Sampled:
    """A rollout: the problems, a group of trajectories of each, their texts; drawn plans, known answers."""

    problems: Sequence[Problem]
    trajectories: Trajectories
    solutions: Sequence[Solution]
    plans: PlanTokens | None = None
    known: KnownAnswers | None = None

    @property
    def repeated(self) -> list[Problem]:
        """The problem of each trajectory."""
        group = len(self.solutions) // len(self.problems)
        return [problem for problem in self.problems for _ in range(group)]


def read_with_plans(
    model: LoadedModel, trajectories: Trajectories, plan_temperature: float
) -> tuple[list[Solution], PlanTokens | None]:
    """The trajectories as text; with a `plan_temperature` each chain's plan is drawn and its tokens kept."""
    if not plan_temperature:
        return read_solutions(model, trajectories), None
    assert model.step_decoder is not None
    plans, tokens = sample_plans(model.step_decoder, model.tokenizer, trajectories, plan_temperature)
    solutions = read_solutions(model, trajectories, with_plans=False)
    by_chain = [plan for plan in plans for _ in range(trajectories.answers)]
    pairs = zip(solutions, by_chain, strict=True)
    return [replace(solution, plan=plan) for solution, plan in pairs], tokens


def reward(
    rewards: RewardSet,
    problems: Sequence[Problem],
    solutions: Sequence[Solution],
    trajectories: Trajectories,
) -> Rewarded:
    """What the rewards say of trajectories, given the problem of each."""
    plans = [solution.plan for solution in solutions]
    used = trajectories.slot_mask.bool()
    latents = [row[mask] for row, mask in zip(trajectories.latents, used, strict=True)]
    return rewards(
        prompts=[problem.question for problem in problems],
        completions=[solution.completion for solution in solutions],
        question=[problem.question for problem in problems],
        answer=[problem.answer for problem in problems],
        modulus=[problem.modulus for problem in problems],
        problems=problems,
        decoded_steps=None if plans[0] is None else plans,
        latents=[row for row in latents for _ in range(trajectories.answers)],
        num_latents=[solution.num_latents for solution in solutions],
        num_tokens=[solution.num_tokens for solution in solutions],
        finished=[solution.finished for solution in solutions],
    )


def split(
    sampled: Sampled, advantages: torch.Tensor, parts: int, has_reward: torch.Tensor | None = None
) -> list[Minibatch]:
    """Minibatches of whole groups, all of one size."""
    trajectories, plans = sampled.trajectories, sampled.plans
    questions, draws = trajectories.question_ids.shape[0], trajectories.draws
    size, group = questions // parts, advantages.shape[0] // questions
    return [
        Minibatch(
            trajectories.select(slice(start, start + size)),
            advantages[start * group : (start + size) * group],
            plans and plans.select(slice(start * draws, (start + size) * draws)),
            sampled.known and sampled.known.select(slice(start, start + size)),
            has_reward=None if has_reward is None else has_reward[start * group : (start + size) * group],
        )
        for start in range(0, questions, size)
    ]


def pad_across_ranks(trainer: Trainer, minibatches: Sequence[Minibatch]) -> list[Minibatch]:
    """The minibatches, of one size on all devices of a sharded run: all then take equally many passes."""
    found = []
    for minibatch in minibatches:
        trajectories = minibatch.trajectories
        sizes = trajectories.slot_mask.shape[1], trajectories.answer_mask.shape[1]
        largest = same_everywhere(trainer, *sizes)
        if largest != sizes:
            trajectories = trajectories.padded(*largest)
        known = minibatch.known
        if known is not None:
            known = known.padded(*same_everywhere(trainer, known.ids.shape[1]))
        found.append(replace(minibatch, trajectories=trajectories, known=known))
    return found


def positions(trajectories: Trajectories) -> int:
    """Positions that the policy reads: questions and chains of latents once, however many share them."""
    masks = (trajectories.question_mask, trajectories.slot_mask, trajectories.answer_mask)
    return sum(int(mask.sum()) for mask in masks)
