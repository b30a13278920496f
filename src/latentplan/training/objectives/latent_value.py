"""Latent RL (arXiv:2512.11816): latents follow the gradient of a value head that is trained beside them.

The value head learns from rollouts whether the answer after a latent is right; the policy's latents, computed
again with gradients, then maximise what the head says of them. What the policy maximises never reaches the
head's weights, and each has its learning rate, so that one optimizer does the work of two.

The published code differs from our defaults in parts that are settings each: the head reads the last layer's
hidden states at latents that are fixed inputs (`value_states`), its loss trains the policy too
(`value_loss_trains_policy`), and it has other layers (`value_head_sizes`, `value_head_activation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from latentplan.common.plugins import setting
from latentplan.modeling.latent_heads import VALUE_HEAD_ACTIVATIONS, ValueHead
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.logprobs import Scores, score
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import choose, plug_in
from latentplan.training.latent_gradients import Pathwise
from latentplan.training.objectives.objective import ADVANTAGE_SETTINGS, RATIO_SETTINGS, RLObjective
from latentplan.training.parameter_groups import give_rate
from latentplan.training.rollout_batch import Minibatch
from latentplan.training.trainable_model import LatentModelForTraining


@dataclass
class LatentValueSettings:
    """The settings of the value head."""

    value_learning_rate: float = setting(1e-4, "learning rate of the value head")
    value_warmup_steps: int = setting(
        0, "optimisation steps that train the value head alone, before the policy follows it"
    )
    value_positive_weight: float = setting(20.0, "weight of right answers in the value head's loss")
    value_states: str = setting(
        "latents",
        "what the value head reads: latents, computed again with gradients through all of them, or "
        "hidden_states, those of the last layer at the latents, which are fixed inputs (as published)",
    )
    value_loss_trains_policy: bool = setting(
        False, "the value head's loss teaches the policy, too, once it follows the head (as published)"
    )
    value_head_sizes: list[int] | None = setting(
        None, "widths of the value head's hidden layers (published: 128 32 8); absent: one, the backbone's"
    )
    value_head_activation: str = setting(
        "gelu", "of the value head's hidden layers: gelu or relu (published)"
    )


def value_loss(logits: Tensor, labels: Tensor, mask: Tensor, positive_weight: float) -> Tensor:
    """Computes the binary cross-entropy of every latent in use against whether its answer is right: a scalar.

    Args:
        logits: `[chains, slots]`, of the value head.
        labels: `[chains]`, the share of right answers of each chain.
        mask: `[chains, slots]`, 1 where a slot is in use.
        positive_weight: weight of right answers, which are rare at first.
    """
    losses = F.binary_cross_entropy_with_logits(
        logits.float(),
        labels.unsqueeze(1).expand_as(logits).float(),
        pos_weight=logits.new_tensor(positive_weight, dtype=torch.float32),
        reduction="none",
    )
    return (losses * mask).sum() / mask.sum().clamp(min=1)


def mean_value(logits: Tensor, mask: Tensor) -> Tensor:
    """Computes the mean over chains of the mean sigmoid of each chain's latents in use: a scalar.

    Args:
        logits: `[chains, slots]`, of the value head.
        mask: `[chains, slots]`, 1 where a slot is in use.
    """
    values = logits.float().sigmoid() * mask
    return (values.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def attached_latents(
    model: LatentReasoner, trajectories: Trajectories, sampling: Sampling
) -> tuple[Scores, Tensor]:
    """Scores trajectories; returns also z_1 … z_T `[chains, slots, hidden]`, with gradients through all."""
    scores = Pathwise().scores(model, trajectories, sampling)
    return scores, scores.chain.latents


def states_at_latents(
    model: LatentReasoner, trajectories: Trajectories, sampling: Sampling
) -> tuple[Scores, Tensor]:
    """Scores trajectories; returns also the last hidden states at z_1 … z_T `[chains, slots, hidden]`.

    As published: the sampled latents are fixed inputs, read in one pass. A hidden state at z_t is what
    Coconut would feed back as z_{t+1}, so that the head reads z_2 … z_{T+1}, each a function of the policy by
    its own pass only.
    """
    state = model.start(trajectories.question_ids, trajectories.question_mask)
    state.read()
    state = state.repeat(trajectories.draws)
    state.append(trajectories.latents, trajectories.slot_mask)
    return score(model, trajectories, sampling), state.read()


StateReader = Callable[[LatentReasoner, Trajectories, Sampling], tuple[Scores, Tensor]]
VALUE_STATES: dict[str, StateReader] = {"latents": attached_latents, "hidden_states": states_at_latents}
"""What `value_states` can name: from recorded trajectories to what the value head reads."""


class LatentValue(RLObjective):
    """The loss is the value head's, and minus the value of the policy's latents; answers are no actions."""

    name = "latent_value"
    settings_class = LatentValueSettings
    latent_gradients = ("pathwise",)
    ignored_settings = (
        *ADVANTAGE_SETTINGS,
        *RATIO_SETTINGS,
        "mask_truncated_completions",
        "plan_temperature",
    )
    needs_latents = True
    needs_full_parameters = True
    compares_trajectories = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.read_states = plug_in("value_states", VALUE_STATES, self.settings.value_states)
        choose("value_head_activation", VALUE_HEAD_ACTIVATIONS, self.settings.value_head_activation)
        sizes = self.settings.value_head_sizes
        if any(size < 1 for size in sizes or ()):
            raise ValueError(f"value_head_sizes must be widths from 1 on, got {sizes}")

    @property
    def has_ratios(self) -> bool:
        """Whether the KL is corrected: nothing else compares the policy with the one that sampled."""
        return self.config.use_bias_correction_kl

    def make_value_head(self, reasoner: LatentReasoner) -> ValueHead:
        """Makes the value head, on the policy's device."""
        sizes, activation = self.settings.value_head_sizes, self.settings.value_head_activation
        return ValueHead(reasoner.config.hidden_size, sizes, activation).to(reasoner.device)

    def set_learning_rates(self, optimizer: torch.optim.Optimizer, system: LatentModelForTraining) -> None:
        """Puts the value head in a group of its own, with its own learning rate."""
        assert system.value_head is not None
        give_rate(optimizer, system.value_head.parameters(), self.settings.value_learning_rate)

    def advantages(self, rewards: Tensor, finished: Tensor) -> Tensor:
        """Clips the rewards to 0 … 1: what the value head is to foresee; 0 where there is none."""
        return rewards.nan_to_num(nan=0.0).clamp(0, 1)

    def labels(self, batch: Minibatch) -> tuple[Tensor, Tensor]:
        """Computes each chain's share of right answers among those with a reward, and if it has any.

        Both are `[chains]`.
        """
        by_chain = (len(batch.trajectories.latents), -1)
        rewards = batch.advantages.unflatten(0, by_chain)
        scored = torch.ones_like(rewards)
        if batch.has_reward is not None:
            scored = batch.has_reward.unflatten(0, by_chain).to(rewards.dtype)
        return (rewards * scored).sum(dim=1) / scored.sum(dim=1).clamp(min=1), scored.any(dim=1)

    def losses(self, system: LatentModelForTraining, batch: Minibatch, step: int) -> dict[str, Tensor]:
        """Computes the value head's loss, and minus what it says of the policy's states; `kl` with `beta`."""
        assert system.value_head is not None
        trajectories, mask = batch.trajectories, batch.trajectories.slot_mask
        scores, states = self.read_states(system.reasoner, trajectories, self.sampling)
        follows = step >= self.settings.value_warmup_steps
        shared = follows and self.settings.value_loss_trains_policy
        labels, labelled = self.labels(batch)
        labelled_slots = mask * labelled.unsqueeze(1)
        logits = system.value_head(states if shared else states.detach())
        judged = value_loss(logits, labels, labelled_slots, self.settings.value_positive_weight)
        frozen = {name: weight.detach() for name, weight in system.value_head.named_parameters()}
        value = mean_value(functional_call(system.value_head, frozen, (states,)), mask)
        self.record_scores(scores, batch)
        error = (logits.detach().sigmoid() - labels.unsqueeze(1)).square() * labelled_slots
        self.record(
            **{
                "value/loss": judged,
                "value/mean": value,
                "value/error": error.sum() / labelled_slots.sum().clamp(min=1),
            }
        )
        losses = {"value_head": judged, "latents": -value * float(follows)}
        return {**losses, **self.kl_penalty(scores, batch)}
