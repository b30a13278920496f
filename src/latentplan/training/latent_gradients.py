"""How the gradient of an RL objective reaches the latents: by their density, through them, or not at all.

`score_function` is the published estimator (ATP-Latent, arXiv:2601.21598; CoLaR, arXiv:2505.16552, averages
over dimensions): latents, stops and answer tokens are actions. In `pathwise` the latents are functions of the
parameters and of recorded noise, z = μ + σ·ε, so the objective of the answer tokens flows back through them,
and only the stop remains an action of its own. `none`, a control, teaches the answer tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from latentplan.common.plugins import import_named, names_own_code
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import chain_noise
from latentplan.rollout.logprobs import Scores, replay, score
from latentplan.rollout.plan_decoding import PlanTokens
from latentplan.rollout.trajectories import Trajectories


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of everything in trajectories that can be an action.

    Attributes:
        latents: `[chains, slots]`, summed over dimensions.
        stops: `[chains, steps]`, of the decisions taken.
        answers: `[trajectories, tokens]`.
        plans: `[chains, steps, tokens]`, or None where plans are not drawn.
    """

    latents: Tensor
    stops: Tensor
    answers: Tensor
    plans: Tensor | None = None

    @classmethod
    def of_rollout(cls, trajectories: Trajectories, plans: PlanTokens | None) -> LogProbs:
        """Takes those that the rollout recorded when it sampled."""
        return cls(
            trajectories.latent_log_probs,
            trajectories.stop_log_probs,
            trajectories.answer_log_probs,
            None if plans is None else plans.log_probs,
        )

    def detach(self) -> LogProbs:
        """Returns the same numbers as constants."""
        values = (getattr(self, item.name) for item in fields(self))
        return LogProbs(*(None if value is None else value.detach() for value in values))  # type: ignore[arg-type]


@dataclass
class Actions:
    """One kind of action of a batch.

    Attributes:
        name: 'latents', 'answers', 'plans' or 'trajectories'.
        log_probs, old_log_probs, mask: `[rows, actions]`; chains are the rows of latents and plans,
            trajectories those of the others.
    """

    name: str
    log_probs: Tensor
    old_log_probs: Tensor
    mask: Tensor


def whole_trajectories(kinds: Sequence[Actions], masks: Mapping[str, Tensor]) -> tuple[Actions, Tensor]:
    """Joins all valid actions of each trajectory into one action.

    Its log-probabilities are relative to the old ones, which are 0: sums over thousands of dimensions would
    lose their difference to rounding.

    Args:
        kinds: of action; a chain that several trajectories share is part of each of them.
        masks: the valid actions of each kind by its name, and the valid `trajectories`, `[trajectories, 1]`.

    Returns:
        the actions 'trajectories', `[trajectories, 1]`, and how many actions each joins, in the same shape.
    """
    mask = masks["trajectories"]

    def by_trajectory(values: Tensor, valid: Tensor) -> Tensor:
        sums = values.float().masked_fill(~valid.bool(), 0.0).sum(dim=1, keepdim=True)
        return sums.repeat_interleave(len(mask) // len(values), dim=0)

    log_ratios, counts = [], []
    for kind in kinds:
        log_ratio = kind.log_probs.float() - kind.old_log_probs.detach().float()
        log_ratios.append(by_trajectory(log_ratio, masks[kind.name]))
        counts.append(by_trajectory(torch.ones_like(log_ratio), masks[kind.name]))
    joined = torch.stack(log_ratios).sum(dim=0)
    return Actions("trajectories", joined, torch.zeros_like(joined), mask), torch.stack(counts).sum(dim=0)


class LatentGradient:
    """An estimator of the latents' gradient: how trajectories are scored, and what in a chain is an action.

    Attributes:
        through_latents: whether latents are functions of the parameters, so that gradients flow through them.
        latents_are_actions: whether the density of a sampled latent is a log-probability of the policy.
        ignored_settings: settings of RL that have no meaning with it.
    """

    through_latents: ClassVar[bool] = False
    latents_are_actions: ClassVar[bool] = False
    ignored_settings: ClassVar[tuple[str, ...]] = ("latent_logprob", "first_slot_of_best")

    def scores(self, model: LatentReasoner, trajectories: Trajectories, sampling: Sampling) -> Scores:
        """Scores trajectories, with the sampled latents as fixed inputs unless a subclass replays them."""
        return score(model, trajectories, sampling)

    def chain_actions(
        self, latents: Tensor, stops: Tensor, trajectories: Trajectories
    ) -> tuple[Tensor, Tensor]:
        """Lists the actions of each chain of latents.

        Args:
            latents: `[chains, slots]`, log-probabilities of latents.
            stops: `[chains, steps]`, log-probabilities of the decisions taken.
            trajectories: that they belong to.

        Returns:
            log-probabilities and mask, `[chains, actions]`; here `[chains, 0]`.
        """
        return latents[:, :0], trajectories.slot_mask[:, :0]

    def actions(
        self, new: LogProbs, old: LogProbs, trajectories: Trajectories, latent_scale: float
    ) -> list[Actions]:
        """Lists the actions of trajectories by kind, new log-probabilities beside old ones.

        Those of latents are multiplied by `latent_scale` (1 / dimensions with `latent_logprob: mean`).
        """
        chain, mask = self.chain_actions(new.latents * latent_scale, new.stops, trajectories)
        old_chain, _ = self.chain_actions(old.latents * latent_scale, old.stops, trajectories)
        answers = Actions("answers", new.answers, old.answers, trajectories.answer_mask)
        return [Actions("latents", chain, old_chain, mask), answers] if chain.shape[1] else [answers]


class ScoreFunction(LatentGradient):
    """REINFORCE on the density of the sampled latents; the stop decisions are actions, too."""

    latents_are_actions = True
    ignored_settings = ()

    def chain_actions(
        self, latents: Tensor, stops: Tensor, trajectories: Trajectories
    ) -> tuple[Tensor, Tensor]:
        """Makes an action of each slot in use, log p(z) + log P(continue) at a boundary; a stop is one more.

        Returns log-probabilities and mask, `[chains, slots + 1]`, or `[chains, 0]` without slots.
        """
        slots, steps = latents.shape[1], stops.shape[1]
        if slots == 0:
            return latents, trajectories.slot_mask
        goes_on = (1 - trajectories.stops) * stops
        boundary = torch.zeros_like(latents)
        boundary[:, :: slots // steps] = goes_on
        final = (trajectories.stops * stops).sum(dim=1, keepdim=True)
        stopped = trajectories.stops.sum(dim=1, keepdim=True)
        return (
            torch.cat([latents + boundary, final], dim=1),
            torch.cat([trajectories.slot_mask, stopped], dim=1),
        )


class Pathwise(LatentGradient):
    """Reparameterised latents, replayed from the rollout's noise: gradients go through them."""

    through_latents = True

    def scores(self, model: LatentReasoner, trajectories: Trajectories, sampling: Sampling) -> Scores:
        """Scores trajectories, with the latents computed again from the noise that the rollout used."""
        noise = trajectories.latents
        if model.config.has_latents:
            noise = chain_noise(model, trajectories.chain_keys)
        return replay(model, trajectories, noise, sampling)

    def chain_actions(
        self, latents: Tensor, stops: Tensor, trajectories: Trajectories
    ) -> tuple[Tensor, Tensor]:
        """Makes an action of each decision of the stop head, `[chains, steps]`."""
        return stops, trajectories.stop_mask


LATENT_GRADIENTS: dict[str, LatentGradient] = {
    "score_function": ScoreFunction(),
    "pathwise": Pathwise(),
    "none": LatentGradient(),
}
"""What `latent_gradient` can name beside code of the user's."""


def get_latent_gradient(name: str) -> LatentGradient:
    """Returns the estimator called `name`: one of `LATENT_GRADIENTS`, or `package.module:Class`.

    Raises:
        ValueError: there is no such name, module or class; the message lists what there is.
    """
    if name in LATENT_GRADIENTS:
        return LATENT_GRADIENTS[name]
    found = import_named(name, "latent gradient", source=None) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, LatentGradient)):
        raise ValueError(
            f"latent_gradient must be one of {sorted(LATENT_GRADIENTS)}, or a subclass of LatentGradient as "
            f"'package.module:Class', got {name!r}"
        )
    return found()
