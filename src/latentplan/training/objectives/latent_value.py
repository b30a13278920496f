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
from typing import Any

import torch
import torch.nn.functional as F
from torch.func import functional_call

from latentplan.modeling.latent_heads import VALUE_HEAD_ACTIVATIONS, ValueHead
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.logprobs import Scores, score
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import GRPOConfig, choose
from latentplan.training.distributed import is_sharded
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.latent_gradients import replay_own_noise
from latentplan.training.parameter_groups import give_rate
from latentplan.training.rollout_batch import Minibatch
from latentplan.training.trainable_model import LatentModelForTraining


def value_loss(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, positive_weight: float
) -> torch.Tensor:
    """Binary cross-entropy of every latent in use against whether its answer is right, a scalar.

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


def mean_value(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over chains of the mean sigmoid value of each chain's latents in use, a scalar."""
    values = logits.float().sigmoid() * mask
    return (values.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def attached_latents(
    model: LatentReasoner, trajectories: Trajectories, sampling: Sampling
) -> tuple[Scores, torch.Tensor]:
    """Scores, and z_1 … z_T `[chains, slots, hidden]`, each with gradients through all before it."""
    scores = replay_own_noise(model, trajectories, sampling)
    return scores, scores.chain.latents


def states_at_latents(
    model: LatentReasoner, trajectories: Trajectories, sampling: Sampling
) -> tuple[Scores, torch.Tensor]:
    """Scores, and the last layer's hidden states at z_1 … z_T `[chains, slots, hidden]`, as published.

    The sampled latents are fixed inputs, read in one pass. A hidden state at z_t is what Coconut would feed
    back as z_{t+1}, so that the head reads z_2 … z_{T+1}, each a function of the policy by its own pass only.
    """
    state = model.start(trajectories.question_ids, trajectories.question_mask)
    state.read()
    state = state.repeat(trajectories.draws)
    state.append(trajectories.latents, trajectories.slot_mask)
    return score(model, trajectories, sampling), state.read()


StateReader = Callable[[LatentReasoner, Trajectories, Sampling], tuple[Scores, torch.Tensor]]
VALUE_STATES: dict[str, StateReader] = {"latents": attached_latents, "hidden_states": states_at_latents}
"""What `value_states` can name: from recorded trajectories to what the value head reads."""


class LatentRLTrainer(GRPOTrainer):
    """GRPO's rollouts; the loss is the value head's, and minus the value of the policy's latents.

    Raises:
        ValueError: the model has no latents, a setting names what does not exist, or weights are sharded.
    """

    def __init__(self, model: LoadedModel, config: GRPOConfig, *args: Any, **kwargs: Any):
        if not model.reasoner.config.num_slots:
            raise ValueError(
                f"estimator value judges latents, and {model.reasoner.config.method} has none: start from a "
                "latent model"
            )
        self.read_states = choose("value_states", VALUE_STATES, config.value_states)
        choose("value_head_activation", VALUE_HEAD_ACTIVATIONS, config.value_head_activation)
        if any(size < 1 for size in config.value_head_sizes or ()):
            raise ValueError(f"value_head_sizes must be widths from 1 on, got {config.value_head_sizes}")
        self._head_settings = (config.value_head_sizes, config.value_head_activation)
        super().__init__(model, config, *args, **kwargs)
        if is_sharded(self.accelerator):
            raise ValueError("estimator value needs whole weights on every device: use DDP or ZeRO-2")

    @property
    def has_ratios(self) -> bool:
        """Whether the KL is corrected: nothing else compares the policy with the one that sampled."""
        return self.args.use_bias_correction_kl

    def build_system(self, model: LoadedModel) -> LatentModelForTraining:
        """The policy and its value head."""
        head = ValueHead(model.reasoner.config.hidden_size, *self._head_settings).to(model.reasoner.device)
        return LatentModelForTraining(model.reasoner, model.step_decoder, objectives={}, value_head=head)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The value head in a group of its own, with its own learning rate."""
        optimizer = super().create_optimizer(*args, **kwargs)
        give_rate(optimizer, self._value_head().parameters(), self.args.value_learning_rate)
        return optimizer

    def _value_head(self) -> ValueHead:
        assert self.model.value_head is not None
        return self.model.value_head

    def _advantages(self, rewards: torch.Tensor, finished: torch.Tensor) -> torch.Tensor:
        """The rewards themselves, from 0 to 1: what the value head is to foresee; 0 where there is none."""
        return rewards.nan_to_num(nan=0.0).clamp(0, 1)

    def _labels(self, batch: Minibatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Each chain's share of right answers among those with a reward, and if it has any, `[chains]`."""
        by_chain = (len(batch.trajectories.latents), -1)
        rewards = batch.advantages.unflatten(0, by_chain)
        scored = torch.ones_like(rewards)
        if batch.has_reward is not None:
            scored = batch.has_reward.unflatten(0, by_chain).to(rewards.dtype)
        return (rewards * scored).sum(dim=1) / scored.sum(dim=1).clamp(min=1), scored.any(dim=1)

    def losses(self, system: LatentModelForTraining, batch: Minibatch) -> dict[str, torch.Tensor]:
        """The value head's loss, and minus what it says of the policy's states; `kl` with `beta`."""
        assert system.value_head is not None
        trajectories, mask = batch.trajectories, batch.trajectories.slot_mask
        scores, states = self.read_states(system.reasoner, trajectories, self.sampling)
        follows = self.state.global_step >= self.args.value_warmup_steps
        shared = follows and self.args.value_loss_trains_policy
        labels, labelled = self._labels(batch)
        labelled_slots = mask * labelled.unsqueeze(1)
        logits = system.value_head(states if shared else states.detach())
        judged = value_loss(logits, labels, labelled_slots, self.args.value_positive_weight)
        frozen = {name: weight.detach() for name, weight in system.value_head.named_parameters()}
        value = mean_value(functional_call(system.value_head, frozen, (states,)), mask)
        self.policy_loss.record_scores(scores, batch)
        error = (logits.detach().sigmoid() - labels.unsqueeze(1)).square() * labelled_slots
        self.record(
            **{
                "value/loss": judged,
                "value/mean": value,
                "value/error": error.sum() / labelled_slots.sum().clamp(min=1),
            }
        )
        losses = {"value_head": judged, "latents": -value * float(follows)}
        return {**losses, **self.penalties(scores, batch)}
