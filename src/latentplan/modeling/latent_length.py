"""The number of latents of a row: given, or decided by the stop head at the first latent of each step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from latentplan.modeling.counter_rng import columns
from latentplan.modeling.sampling import Temperature, draw, log_softmax

if TYPE_CHECKING:
    from latentplan.modeling.configuration import LatentReasonerConfig
    from latentplan.modeling.reasoner import LatentReasoner


@dataclass
class StopDecision:
    """The decisions of the stop head at the steps of a block.

    Attributes:
        stop: `[rows, steps]`, 1 where it stops.
        mask: `[rows, steps]`, 1 where it decided: the row was unfinished, and its length was not given.
        log_prob: `[rows, steps]`, log-probability of the decision; 0 where there was none.
        logits: `[rows, steps, 2]`, of continue and stop.
    """

    names: ClassVar[tuple[str, ...]] = ("stop", "mask", "log_prob", "logits")
    stop: torch.Tensor
    mask: torch.Tensor
    log_prob: torch.Tensor
    logits: torch.Tensor


@dataclass
class LatentLength:
    """The length rule of a batch.

    Attributes:
        mask: `[rows, slots]`, 1 for slots in use where lengths are known (training, scoring, forced K); None
            leaves them to the stop head, or uses every slot where the model has none.
        temperature: of the decisions; 0 stops where stopping is more probable.
        keys: `[rows, steps]` int64, of sampled decisions; None samples nothing.
        at_least: `[rows]`, the number of steps before which the row does not stop (after an edit), or None.
    """

    mask: torch.Tensor | None = None
    temperature: Temperature = 0.0
    keys: torch.Tensor | None = None
    at_least: torch.Tensor | None = None

    def slots(self, config: LatentReasonerConfig) -> int:
        """Returns the number of slots that are computed."""
        return config.num_slots if self.mask is None else self.mask.shape[1]

    def rows(self, index: torch.Tensor | slice) -> LatentLength:
        """Returns the rule of some rows."""
        if isinstance(index, slice):
            return self
        chosen: dict[str, Any] = {
            name: each[index] for name, each in vars(self).items() if isinstance(each, torch.Tensor)
        }
        return replace(self, **chosen)

    def decide(
        self, model: LatentReasoner, latents: torch.Tensor, start: int | torch.Tensor, alive: torch.Tensor
    ) -> tuple[torch.Tensor, StopDecision | None]:
        """Decides which slots of a block are in use.

        Args:
            model: the reasoner.
            latents: `[rows, size, hidden]`.
            start: the block's first slot, a number or `[rows]`.
            alive: `[rows]`, 1 for unfinished rows.

        Returns:
            1 for slots in use, `[rows, size]`, and the stop head's decision, or None where it made none.
        """
        size = latents.shape[1]
        if self.mask is not None:
            return columns(self.mask, start, size), None
        step = model.config.latents_per_step
        if model.stop_head is None or (isinstance(start, int) and start % step):
            return alive.unsqueeze(1).expand(-1, size), None
        logits = model.stop_head(latents[:, ::step])
        first = start if isinstance(start, int) else start.unsqueeze(1)
        number = first // step + torch.arange(logits.shape[1], device=latents.device)
        number = number.expand(logits.shape[:2])
        free = torch.ones_like(number)
        if self.at_least is not None:
            free = free * (number >= self.at_least.unsqueeze(1))
        if isinstance(first, torch.Tensor):  # there is no decision within a step
            free = free * (first % step == 0)
        stop = self._stop(logits, number) * free
        after = alive.unsqueeze(1) * (1 - stop).cumprod(dim=1)
        before = torch.cat([alive.unsqueeze(1), after[:, :-1]], dim=1)
        decided = before * free
        log_prob = log_softmax(logits, self.temperature).gather(2, stop.unsqueeze(2)).squeeze(2) * decided
        mask = after.repeat_interleave(min(step, size), dim=1)[:, :size]
        return mask, StopDecision(stop * before, decided, log_prob, logits)

    def _stop(self, logits: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Decides for each step whether to stop, `[rows, steps]`; `number` `[rows, steps]` are the steps."""
        keys = None if self.keys is None else self.keys.gather(1, number).flatten()
        temperature = self.temperature
        if isinstance(temperature, torch.Tensor):
            temperature = temperature.repeat_interleave(number.shape[1])
        return draw(logits.flatten(0, 1), keys, temperature).view_as(number)
