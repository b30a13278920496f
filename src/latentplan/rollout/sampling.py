"""How stops and tokens are drawn: at a temperature, with uniform numbers given from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """Settings of a rollout.

    Attributes:
        temperature: of answer tokens and of the stop head; 0 takes the most probable.
        latent_temperature: scale of σ; 0 uses μ.
        max_new_tokens: answer tokens at most.
    """

    temperature: float = 1.0
    latent_temperature: float = 1.0
    max_new_tokens: int = 64

    @classmethod
    def greedy(cls, max_new_tokens: int = 64) -> Sampling:
        """Means, most probable stops and most probable tokens."""
        return cls(temperature=0.0, latent_temperature=0.0, max_new_tokens=max_new_tokens)


def log_softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities `[..., classes]` of the policy that samples at `temperature` (0 scores as 1)."""
    logits = logits.float()
    # Nothing is divided by 1: over a large vocabulary that would be a copy.
    return torch.log_softmax(logits if temperature in (0, 1) else logits / temperature, dim=-1)


def draw(log_probs: torch.Tensor, uniform: torch.Tensor | None, temperature: float) -> torch.Tensor:
    """One class a row, by inverting the distribution function; the most probable at temperature 0.

    Args:
        log_probs: `[batch, classes]`, already at the temperature.
        uniform: `[batch]`, in (0, 1); not needed at temperature 0.
    """
    if temperature == 0:
        return log_probs.argmax(dim=-1)
    assert uniform is not None
    cumulative = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)
    target = (uniform * cumulative[:, -1]).unsqueeze(1)
    return torch.searchsorted(cumulative, target).squeeze(1).clamp(max=log_probs.shape[-1] - 1)


def choose(
    logits: torch.Tensor, uniform: torch.Tensor | None, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row and its log-probability, `[batch]` each, from `[batch, vocabulary]`; see `draw`."""
    log_probs = log_softmax(logits, temperature)
    # Of the logits: two that differ in their last digit may have the same log-probability.
    token = logits.argmax(dim=-1) if temperature == 0 else draw(log_probs, uniform, temperature)
    return token, log_probs.gather(1, token.unsqueeze(1)).squeeze(1)


def choose_each(
    logits: torch.Tensor, temperatures: Sequence[float], uniform: Callable[[list[int]], torch.Tensor]
) -> torch.Tensor:
    """One class a row, `[batch]`, each at a temperature of its own; see `draw`.

    Args:
        logits: `[batch, classes]`.
        temperatures: of each row; 0 takes the most probable.
        uniform: gives the numbers in (0, 1) of some rows, `[n]`; asked only for those that are drawn.
    """
    chosen = logits.float().argmax(dim=-1)
    warm = [row for row, temperature in enumerate(temperatures) if temperature]
    if warm:
        scale = torch.tensor([[temperatures[row]] for row in warm], device=logits.device)
        log_probs = torch.log_softmax(logits[warm].float() / scale, dim=-1)
        chosen[warm] = draw(log_probs, uniform(warm), 1.0)
    return chosen
