"""Latent RL (arXiv:2512.11816): latents follow the gradient of a value head that is trained beside them.

The value head learns from rollouts whether the answer after a latent is right; the policy's latents, computed
again with gradients, then maximise what the head says of them. Neither loss reaches the weights of the other,
and each has its learning rate, so that one optimizer does the work of two.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.func import functional_call

from latentplan.methods.system import LatentSystem
from latentplan.modeling.heads import ValueHead
from latentplan.modeling.loading import LoadedModel
from latentplan.training.grpo import GRPOTrainer
from latentplan.training.learning_rates import give_rate
from latentplan.training.rollouts import Minibatch
from latentplan.training.sharding import is_sharded


def value_loss(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, positive_weight: float
) -> torch.Tensor:
    """Binary cross-entropy of every latent in use against whether its answer is right, a scalar.

    Args:
        logits: `[chains, slots]`, of the value head on detached latents.
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


class LatentRLTrainer(GRPOTrainer):
    """GRPO's rollouts; the loss is the value head's, and minus the value of the policy's latents."""

    def __init__(self, model: LoadedModel, *args: Any, **kwargs: Any):
        if not model.reasoner.config.num_slots:
            raise ValueError(
                f"estimator value judges latents, and {model.reasoner.config.method} has none: start from a "
                "latent model"
            )
        super().__init__(model, *args, **kwargs)
        if is_sharded(self.accelerator):
            raise ValueError("estimator value needs whole weights on every device: use DDP or ZeRO-2")

    @property
    def has_ratios(self) -> bool:
        """Whether the KL is corrected: nothing else compares the policy with the one that sampled."""
        return self.args.use_bias_correction_kl

    def build_system(self, model: LoadedModel) -> LatentSystem:
        """The policy and its value head."""
        head = ValueHead(model.reasoner.config.hidden_size).to(model.reasoner.device)
        return LatentSystem(model.reasoner, model.step_decoder, objectives={}, value_head=head)

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

    def losses(self, system: LatentSystem, batch: Minibatch) -> dict[str, torch.Tensor]:
        """The value head's loss, and minus what it says of the latents; `kl` with `beta`."""
        assert system.value_head is not None
        trajectories = batch.trajectories
        scores = self.policy_loss.scores(system, trajectories)
        latents, mask = scores.chain.latents, trajectories.slot_mask
        labels, labelled = self._labels(batch)
        labelled_slots = mask * labelled.unsqueeze(1)
        logits = system.value_head(latents.detach())
        judged = value_loss(logits, labels, labelled_slots, self.args.value_positive_weight)
        frozen = {name: weight.detach() for name, weight in system.value_head.named_parameters()}
        value = mean_value(functional_call(system.value_head, frozen, (latents,)), mask)
        self.policy_loss.record_scores(scores, batch)
        error = (logits.detach().sigmoid() - labels.unsqueeze(1)).square() * labelled_slots
        self.record(
            **{
                "value/loss": judged,
                "value/mean": value,
                "value/error": error.sum() / labelled_slots.sum().clamp(min=1),
            }
        )
        follows = self.state.global_step >= self.args.value_warmup_steps
        losses = {"value_head": judged, "latents": -value * float(follows)}
        return {**losses, **self.penalties(scores, batch)}
