"""Sampling of stop decisions and tokens at a temperature, by the Gumbel-max trick with counter-based noise.

The argmax of log-probability + Gumbel noise is a sample (Maddison, Tarlow & Minka 2014). Rounding of the
logits changes it only where two classes nearly tie. If the distribution function were inverted instead, the
last digit of any probability could move the sample to a neighbouring class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentplan.modeling import counter_rng

_NUMBERS_AT_ONCE = {"cpu": 2**16}
"""Numbers that are drawn together, by device: they fit a CPU's caches. Other devices draw all at once."""


@dataclass(frozen=True)
class Sampling:
    """The sampling settings of a rollout.

    Attributes:
        temperature: of answer tokens and stop decisions; 0 takes the most probable.
        latent_temperature: scale of σ; 0 uses μ.
        max_new_tokens: answer tokens at most.
    """

    temperature: float = 1.0
    latent_temperature: float = 1.0
    max_new_tokens: int = 64

    @classmethod
    def greedy(cls, max_new_tokens: int = 64) -> Sampling:
        """Returns settings for means, most probable stop decisions and most probable tokens."""
        return cls(temperature=0.0, latent_temperature=0.0, max_new_tokens=max_new_tokens)


Temperature = float | torch.Tensor
"""A number for all rows, or `[rows]`."""


def log_softmax(logits: torch.Tensor, temperature: Temperature) -> torch.Tensor:
    """Computes log-probabilities `[rows, ..., classes]` at a temperature; 0 counts as 1 here."""
    logits = logits.float()
    if isinstance(temperature, torch.Tensor):
        scale = torch.where(temperature > 0, temperature, 1.0)
        return torch.log_softmax(logits / scale.reshape(-1, *[1] * (logits.dim() - 1)), dim=-1)
    # A division by 1 would copy all logits.
    return torch.log_softmax(logits if temperature in (0, 1) else logits / temperature, dim=-1)


def draw(logits: torch.Tensor, keys: torch.Tensor | None, temperature: Temperature) -> torch.Tensor:
    """Samples one class for each row, `[rows]`: the argmax of logits / temperature + Gumbel noise.

    Args:
        logits: `[rows, classes]`, normalised or not.
        keys: `[rows]` int64, a different one for each sample; None takes the most probable class.
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
        # The noise is multiplied by the temperature, so that it vanishes at 0.
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
    """Samples one token for each row from logits `[rows, vocabulary]`, as `draw` does.

    Returns:
        The tokens and their log-probabilities, `[rows]` each.
    """
    token = draw(logits, keys, temperature)
    return token, log_softmax(logits, temperature).gather(1, token.unsqueeze(1)).squeeze(1)
