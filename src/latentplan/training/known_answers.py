"""Right answers in the place of sampled ones, or beside them: what a chain of latents is asked about.

Each question's answer, as the data write it, becomes one of the answers of each of its chains. It has no
log-probability of its own from sampling and is no action: only how likely the latents make it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch

from latentplan.encoding.processor import pad_right
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rollout.logprobs import Scores
from latentplan.rollout.trajectories import Trajectories, widened


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
        """As the model's encoder writes them."""
        answers = [encoded.answer for encoded in model.encoder.encode_all(problems)]
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
