"""How stops and tokens are drawn: at a temperature, by Gumbel-max from counter-based noise.

The largest of log-probability + Gumbel noise is a sample (Maddison, Tarlow & Minka 2014). Rounding of the
logits changes it only where two classes nearly tie. Inverting the distribution function instead would let the
last digit of any probability move the sample to a neighbouring class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentplan.modeling import counter_rng

_NUMBERS_AT_ONCE = {"cpu": 2**16}
"""Numbers that are made together: few enough for a processor's caches. All of them on other devices."""


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


Temperature = float | torch.Tensor
"""One for all rows, or `[rows]`."""


def log_softmax(logits: torch.Tensor, temperature: Temperature) -> torch.Tensor:
    """Log-probabilities `[rows, ..., classes]` of a policy that samples at `temperature` (0 scores as 1)."""
    logits = logits.float()
    if isinstance(temperature, torch.Tensor):
        scale = torch.where(temperature > 0, temperature, 1.0)
        return torch.log_softmax(logits / scale.reshape(-1, *[1] * (logits.dim() - 1)), dim=-1)
    # Nothing is divided by 1: over a large vocabulary that would be a copy.
    return torch.log_softmax(logits if temperature in (0, 1) else logits / temperature, dim=-1)


def draw(logits: torch.Tensor, keys: torch.Tensor | None, temperature: Temperature) -> torch.Tensor:
    """Draws one class a row, `[rows]`: the largest of logits / temperature + Gumbel noise.

    Args:
        logits: `[rows, classes]`, normalised or not.
        keys: `[rows]` int64, another one for each draw; None takes the most probable class.
        temperature: 0 takes the most probable class.
    """
    if keys is None or (not isinstance(temperature, torch.Tensor) and temperature == 0):
        return logits.argmax(dim=-1)
    if isinstance(temperature, torch.Tensor):
        temperature = temperature.unsqueeze(1)
    best = chosen = None
    rows, classes = logits.shape
    size = max(1, _NUMBERS_AT_ONCE.get(logits.device.type, logits.numel()) // max(1, rows))
    for first, part in zip(range(0, classes, size), logits.split(size, dim=1), strict=True):
        # Multiplied by the temperature instead of divided by it, noise vanishes at 0.
        scores = part.float() + counter_rng.gumbel(keys, part.shape[1], first) * temperature
        score, index = scores.max(dim=1)
        if best is None or chosen is None:
            best, chosen = score, index
        else:
            chosen = torch.where(score > best, index + first, chosen)
            best = torch.maximum(best, score)
    assert chosen is not None
    return chosen


def choose(
    logits: torch.Tensor, keys: torch.Tensor | None, temperature: Temperature
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws one token a row and its log-probability, `[rows]` each, from `[rows, vocabulary]`; see `draw`."""
    token = draw(logits, keys, temperature)
    return token, log_softmax(logits, temperature).gather(1, token.unsqueeze(1)).squeeze(1)
