"""Estimators of the policy gradient: which actions have log-probabilities, and through what gradients flow.

`score_function` is the published one (ATP-Latent, arXiv:2601.21598; CoLaR, arXiv:2505.16552, averages over
dimensions): latents, stops and answer tokens are actions. In `pathwise` the latents are functions of the
parameters and of recorded noise, z = μ + σ·ε, so the objective of the answer tokens flows back through them;
only the stop remains an action of its own. `answers`, a control, teaches the answer tokens alone. `value`
(Latent RL, arXiv:2512.11816) asks a value head about such latents instead of sampled answers (`latent_rl`),
and `likelihood` how likely they make the right answer (`likelihood`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

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

    latents: torch.Tensor
    stops: torch.Tensor
    answers: torch.Tensor
    plans: torch.Tensor | None = None

    @classmethod
    def of_rollout(cls, trajectories: Trajectories, plans: PlanTokens | None) -> LogProbs:
        """Those that the rollout recorded when it sampled."""
        return cls(
            trajectories.latent_log_probs,
            trajectories.stop_log_probs,
            trajectories.answer_log_probs,
            None if plans is None else plans.log_probs,
        )

    def detach(self) -> LogProbs:
        """The same numbers as constants."""
        values = (getattr(self, item.name) for item in fields(self))
        return LogProbs(*(None if value is None else value.detach() for value in values))  # type: ignore[arg-type]


@dataclass
class Actions:
    """One kind of action of a batch.

    Attributes:
        name: 'latents', 'answers' or 'plans'.
        log_probs, old_log_probs, mask: `[rows, actions]`; trajectories for answers, chains for the others.
    """

    name: str
    log_probs: torch.Tensor
    old_log_probs: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Estimator:
    """How log-probabilities are computed, and which actions of a chain of latents they belong to.

    Attributes:
        scores: (model, trajectories, sampling) to `Scores`.
        chain_actions: (latent, stop log-probabilities, trajectories) to log-probabilities and mask.
    """

    scores: Callable[[LatentReasoner, Trajectories, Sampling], Scores]
    chain_actions: Callable[[torch.Tensor, torch.Tensor, Trajectories], tuple[torch.Tensor, torch.Tensor]]

    @property
    def attached(self) -> bool:
        """Whether latents are functions of the parameters, so that gradients flow through them."""
        return self.scores is replay_own_noise

    def actions(
        self, new: LogProbs, old: LogProbs, trajectories: Trajectories, latent_scale: float
    ) -> list[Actions]:
        """The actions of trajectories, new beside old; `latent_scale` multiplies those of latents."""
        chain, mask = self.chain_actions(new.latents * latent_scale, new.stops, trajectories)
        old_chain, _ = self.chain_actions(old.latents * latent_scale, old.stops, trajectories)
        answers = Actions("answers", new.answers, old.answers, trajectories.answer_mask)
        return [Actions("latents", chain, old_chain, mask), answers] if chain.shape[1] else [answers]


def slot_actions(
    latent_log_probs: torch.Tensor, stop_log_probs: torch.Tensor, trajectories: Trajectories
) -> tuple[torch.Tensor, torch.Tensor]:
    """A slot in use is an action, log p(z) + log P(continue) at a boundary; the final stop is one more.

    Returns log-probabilities and mask, `[chains, slots + 1]`, or `[chains, 0]` without slots.
    """
    slots, steps = latent_log_probs.shape[1], stop_log_probs.shape[1]
    if slots == 0:
        return latent_log_probs, trajectories.slot_mask
    goes_on = (1 - trajectories.stops) * stop_log_probs
    boundary = torch.zeros_like(latent_log_probs)
    boundary[:, :: slots // steps] = goes_on
    final = (trajectories.stops * stop_log_probs).sum(dim=1, keepdim=True)
    stopped = trajectories.stops.sum(dim=1, keepdim=True)
    return (
        torch.cat([latent_log_probs + boundary, final], dim=1),
        torch.cat([trajectories.slot_mask, stopped], dim=1),
    )


def stop_actions(
    latent_log_probs: torch.Tensor, stop_log_probs: torch.Tensor, trajectories: Trajectories
) -> tuple[torch.Tensor, torch.Tensor]:
    """Only the decisions of the stop head are actions, `[chains, steps]`."""
    return stop_log_probs, trajectories.stop_mask


def no_actions(
    latent_log_probs: torch.Tensor, stop_log_probs: torch.Tensor, trajectories: Trajectories
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nothing in a chain of latents is an action, `[chains, 0]`."""
    return latent_log_probs[:, :0], trajectories.slot_mask[:, :0]


def replay_own_noise(model: LatentReasoner, trajectories: Trajectories, sampling: Sampling) -> Scores:
    """The latents computed again from the noise that the rollout used."""
    noise = trajectories.latents
    if model.config.has_latents:
        noise = chain_noise(model, trajectories.chain_keys)
    return replay(model, trajectories, noise, sampling)


ESTIMATORS: dict[str, Estimator] = {
    "score_function": Estimator(score, slot_actions),
    "pathwise": Estimator(replay_own_noise, stop_actions),
    "answers": Estimator(score, no_actions),
    "value": Estimator(replay_own_noise, stop_actions),
    "likelihood": Estimator(replay_own_noise, stop_actions),
    "log_likelihood": Estimator(replay_own_noise, stop_actions),
}
