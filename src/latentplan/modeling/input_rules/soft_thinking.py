"""Soft Thinking (arXiv:2505.15778) and its Gumbel variant (arXiv:2511.06411) as rules for the next input."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentplan.modeling import counter_rng
from latentplan.modeling.token_loop import InputRule, NextInput


class SoftThinking(InputRule):
    """Mixtures: the next input is the probability-weighted embedding of the most probable tokens.

    Args:
        until: id of the token after which inputs are plain tokens, such as the first of the answer marker;
            None for mixtures to the end.
        temperature: of the weights, above 0.
        width: tokens in the mixture.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "soft_thinking"

    def __init__(self, until: int | None = None, temperature: float = 1.0, width: int = 8):
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above 0, got {temperature!r}")
        if until is not None and type(until) is not int:
            raise ValueError(f"until must be a token's id, got {until!r}")
        if type(width) is not int or width < 2:
            raise ValueError(f"width must be a whole number of at least 2, got {width!r}")
        self.until, self.temperature, self.width = until, temperature, width

    def memory(self, rows: int, device: torch.device) -> Tensor:
        """Returns 1 for each row that has not generated `until`, `[rows, 1]`."""
        return torch.ones(rows, 1, dtype=torch.long, device=device)

    def next_input(
        self, logits: Tensor, token: Tensor, memory: Tensor | None, keys: Tensor | None
    ) -> NextInput:
        """Returns the mixture of each row, or the plain token after `until`; see the base class."""
        assert memory is not None
        memory = memory if self.until is None else memory * (token != self.until).unsqueeze(1)
        soft = memory.bool()
        ids, weights, log_prob, action = self.mixture(logits.float(), keys)
        plain = torch.zeros_like(weights)
        plain[:, 0] = 1.0
        return NextInput(
            torch.where(soft, ids, token.unsqueeze(1)),
            torch.where(soft, weights, plain),
            memory,
            None if log_prob is None else torch.where(soft[:, 0], log_prob, 0.0),
            None if action is None else torch.where(soft, action, torch.nan),
        )

    def mixture(
        self, logits: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Returns ids and weights `[rows, width]`; and log-density `[rows]` and action, or None for both."""
        top = (logits / self.temperature).topk(min(self.width, logits.shape[1]), dim=1)
        return top.indices, top.values.softmax(dim=1), None, None


class GumbelMixture(SoftThinking):
    """Weights softmax((log p + Gumbel noise) / temperature); the action is the perturbed log-probabilities.

    Its density is Π gumbel(action - log p) over the mixture's tokens, which are taken as given.
    """

    name = "gumbel_mixture"
    draws = True

    def mixture(
        self, logits: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Returns the perturbed mixture as `SoftThinking` does; without keys nothing is perturbed."""
        top = logits.log_softmax(dim=1).topk(min(self.width, logits.shape[1]), dim=1)
        if keys is None:
            return top.indices, (top.values / self.temperature).softmax(dim=1), None, None
        action = top.values + counter_rng.gumbel(keys, top.values.shape[1])
        weights = (action / self.temperature).softmax(dim=1)
        return top.indices, weights, _density(action - top.values), action

    def log_prob(self, logits: Tensor, ids: Tensor, action: Tensor) -> Tensor:
        """Computes log-densities as the base class says; 0 where the input was a plain token."""
        drawn = ~action.isnan().any(dim=1)
        log_p = logits.float().log_softmax(dim=1).gather(1, ids)
        return torch.where(drawn, _density(action.nan_to_num(0.0) - log_p), 0.0)


def _density(gumbel: Tensor) -> Tensor:
    """Computes the log-density of standard Gumbel numbers `[rows, width]`, summed to `[rows]`."""
    return (-gumbel - torch.exp(-gumbel)).sum(dim=1)
