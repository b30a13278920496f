"""Latent heads, the stop head and the value head; densities and KL divergences of diagonal Gaussians.

A latent head maps the backbone's last hidden state before a slot to the distribution of that slot's latent
(arXiv:2601.21598, section 3). Its linear layers up to the mean are initialised orthogonal: three random
square matrices in a row would almost lose some directions of the hidden state, and later stages would then
learn several times slower. All heads, densities and divergences are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentplan.common.plugins import CodeSource, import_named, names_own_code
from latentplan.modeling.efficiency.linear_layers import linear


@dataclass
class LatentDistribution:
    """A diagonal Gaussian over latent tokens, or a point where `log_variance` is None.

    Attributes:
        mean: `[..., hidden]`.
        log_variance: `[..., hidden]`, log σ², or None.
    """

    mean: torch.Tensor
    log_variance: torch.Tensor | None = None

    def sample(self, noise: torch.Tensor | None, temperature: float | torch.Tensor = 1.0) -> torch.Tensor:
        """Computes μ + temperature·σ·noise, `[..., hidden]`, or μ where `noise` is None.

        Args:
            noise: standard normal numbers of the shape of `mean`, or None.
            temperature: a number, or a tensor that broadcasts.
        """
        cold = not isinstance(temperature, torch.Tensor) and temperature == 0
        if self.log_variance is None or noise is None or cold:
            return self.mean
        return self.mean + temperature * torch.exp(0.5 * self.log_variance) * noise


def full_precision(forward: Callable[[Any, torch.Tensor], Any]) -> Callable[[Any, torch.Tensor], Any]:
    """Makes a module's `forward` compute in float32, whatever the input's dtype and autocast."""

    @wraps(forward)
    def run(self: Any, inputs: torch.Tensor) -> Any:
        with torch.autocast(inputs.device.type, enabled=False):
            return forward(self, inputs.float())

    return run


class Linear(nn.Linear):
    """A linear layer in float32, also where an engine has cast its weights (DeepSpeed's bf16)."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps float32 inputs `[..., in]` to `[..., out]`."""
        return linear(inputs, self.weight.float(), None if self.bias is None else self.bias.float())


class LayerNorm(nn.LayerNorm):
    """A layer norm in float32, also where an engine has cast its weights."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises float32 inputs `[..., hidden]`; the shape stays."""
        return F.layer_norm(inputs, self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


class HiddenStateHead(nn.Module):
    """Coconut (arXiv:2412.06769): the last hidden state itself is the latent."""

    is_gaussian = False

    def __init__(self, hidden_size: int, initial_scale: float, initial_log_variance: float):
        super().__init__()

    @full_precision
    def forward(self, hidden: torch.Tensor) -> LatentDistribution:
        """Maps hidden states `[..., hidden]` to a point each."""
        return LatentDistribution(hidden)


class PauseHead(nn.Module):
    """Pause tokens (arXiv:2310.02226): one learned embedding, whatever precedes it."""

    is_gaussian = False

    def __init__(self, hidden_size: int, initial_scale: float, initial_log_variance: float):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(hidden_size))

    @full_precision
    def forward(self, hidden: torch.Tensor) -> LatentDistribution:
        """Returns the same point for each hidden state `[..., hidden]`, of which only the shape matters."""
        return LatentDistribution(self.embedding.float().expand_as(hidden))


class ProjectedHead(nn.Module):
    """A two-layer projection without noise: ATP-Latent's head in the ablation 'no VAE'."""

    is_gaussian = False

    def __init__(self, hidden_size: int, initial_scale: float, initial_log_variance: float):
        super().__init__()
        self.trunk = _trunk(hidden_size)
        self.mean = _latent_map(hidden_size, initial_scale)

    @full_precision
    def forward(self, hidden: torch.Tensor) -> LatentDistribution:
        """Maps hidden states `[..., hidden]` to a point each."""
        return LatentDistribution(self.mean(self.trunk(hidden)))


class NormalisedHead(nn.Module):
    """CODI's projection (arXiv:2502.21074): `Linear → GELU → Linear → LayerNorm`."""

    is_gaussian = False

    def __init__(self, hidden_size: int, initial_scale: float, initial_log_variance: float):
        super().__init__()
        self.trunk = _trunk(hidden_size)
        self.trunk[-1].initial_weight = initial_scale  # type: ignore[assignment]

    @full_precision
    def forward(self, hidden: torch.Tensor) -> LatentDistribution:
        """Maps hidden states `[..., hidden]` to a point each."""
        return LatentDistribution(self.trunk(hidden))


class GaussianHead(nn.Module):
    """ATP-Latent's head: `Linear → GELU → Linear → LayerNorm`, then a linear layer each for μ and log σ²."""

    is_gaussian = True

    def __init__(self, hidden_size: int, initial_scale: float, initial_log_variance: float):
        super().__init__()
        self.trunk = _trunk(hidden_size)
        self.mean = _latent_map(hidden_size, initial_scale)
        self.log_variance = Linear(hidden_size, hidden_size)
        self.log_variance.initial_bias = initial_log_variance  # type: ignore[assignment]

    @full_precision
    def forward(self, hidden: torch.Tensor) -> LatentDistribution:
        """Maps hidden states `[..., hidden]` to a Gaussian each."""
        features = self.trunk(hidden)
        return LatentDistribution(self.mean(features), self.log_variance(features))


class EmbeddingHead(GaussianHead):
    """CoLaR's head (arXiv:2505.16552): a Gaussian over latents of the size of token embeddings.

    It computes in units of `initial_scale`, the standard deviation of the embeddings.
    """

    def __init__(self, hidden_size: int, initial_scale: float, initial_log_variance: float):
        super().__init__(hidden_size, 1.0, initial_log_variance)
        self.output_scale = initial_scale

    @full_precision
    def forward(self, hidden: torch.Tensor) -> LatentDistribution:
        """Maps hidden states `[..., hidden]` to a Gaussian each."""
        features = self.trunk(hidden)
        log_variance = self.log_variance(features) + 2 * math.log(self.output_scale)
        return LatentDistribution(self.output_scale * self.mean(features), log_variance)


class StopHead(nn.Module):
    """A classifier of latents: is this slot unused? Class 1 is 'stop' (arXiv:2601.21598, section 3).

    Args:
        hidden_size: width of the latents.
        latent_scale: root mean square of the latents, which are divided by it.
    """

    def __init__(self, hidden_size: int, latent_scale: float = 1.0):
        super().__init__()
        self.latent_scale = latent_scale
        self.layers = nn.Sequential(Linear(hidden_size, hidden_size), nn.GELU(), Linear(hidden_size, 2))

    @full_precision
    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Maps latents `[..., hidden]` to logits `[..., 2]`."""
        return self.layers(latents / self.latent_scale)


class ValueHead(nn.Module):
    """Latent RL's value head (arXiv:2512.11816): the logit of a correct answer after a latent.

    Args:
        hidden_size: width of its inputs.
        sizes: widths of its hidden layers; one of `hidden_size` by default. Published: 128, 32, 8.
        activation: a name in `VALUE_HEAD_ACTIVATIONS`, after each hidden layer. Published: relu.
    """

    def __init__(self, hidden_size: int, sizes: Sequence[int] | None = None, activation: str = "gelu"):
        super().__init__()
        widths = [hidden_size, *([hidden_size] if sizes is None else sizes)]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [Linear(width, following), VALUE_HEAD_ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, Linear(widths[-1], 1))

    @full_precision
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Maps latents or hidden states `[..., hidden]` to logits `[...]`."""
        return self.layers(states).squeeze(-1)


def _trunk(hidden_size: int) -> nn.Sequential:
    return nn.Sequential(
        _latent_map(hidden_size),
        nn.GELU(),
        _latent_map(hidden_size),
        LayerNorm(hidden_size),
    )


def _latent_map(hidden_size: int, gain: float = 1.0) -> Linear:
    linear = Linear(hidden_size, hidden_size)
    linear.orthogonal_gain = gain  # type: ignore[assignment]
    return linear


VALUE_HEAD_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
"""What `value_head_activation` can name."""

LATENT_HEADS: dict[str, type[nn.Module]] = {
    "hidden_state": HiddenStateHead,
    "pause": PauseHead,
    "projected": ProjectedHead,
    "projected_norm": NormalisedHead,
    "gaussian": GaussianHead,
    "embedding": EmbeddingHead,
}


def latent_head_class(name: str, source: CodeSource | None = None) -> type[nn.Module]:
    """Finds the head with this name: one of `LATENT_HEADS`, or the user's own as `package.module:Class`.

    Args:
        name: of the head.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such name, module or class.
    """
    if name in LATENT_HEADS:
        return LATENT_HEADS[name]
    found = import_named(name, "latent_head", source) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(
            f"latent_head must be one of {sorted(LATENT_HEADS)}, or a module of yours as "
            f"'package.module:Class', got {name!r}"
        )
    return found


def is_gaussian(head: nn.Module, hidden_size: int) -> bool:
    """Says whether a latent head maps hidden states to Gaussians, and not to points.

    A head of the user's that has no attribute `is_gaussian` is called once, on a hidden state of zeros.
    """
    declared = getattr(head, "is_gaussian", None)
    if declared is None:
        parameter = next(head.parameters(), None)
        hidden = torch.zeros(1, hidden_size, device=None if parameter is None else parameter.device)
        with torch.no_grad():
            declared = head(hidden).log_variance is not None
        vars(head)["is_gaussian"] = declared
    return bool(declared)


_LOG_TWO_PI = math.log(2 * math.pi)


def gaussian_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor, mask: Tensor | None = None) -> Tensor:
    """Computes log N(z; μ, diag σ²), the sum over dimensions, in nats: `[..., hidden]` to `[...]`.

    Args:
        z: `[..., hidden]`; detached for a score-function gradient.
        mean, log_variance: `[..., hidden]`, μ and log σ².
        mask: `[...]`; the result is 0 where it is 0.
    """
    return _masked(_gaussian_log_density(z, mean, log_variance).sum(dim=-1), mask)


def gaussian_kl(mean_p: Tensor, log_variance_p: Tensor, mean_q: Tensor, log_variance_q: Tensor) -> Tensor:
    """Computes KL(p‖q) of diagonal Gaussians for each dimension, in nats; all are `[..., hidden]`.

    It is ½(log σ_q² − log σ_p² + (σ_p² + (μ_p − μ_q)²)/σ_q² − 1). The KL of latents to the reference policy
    is therefore exact, and not an estimate.
    """
    mean_p, log_variance_p = mean_p.float(), log_variance_p.float()
    mean_q, log_variance_q = mean_q.float(), log_variance_q.float()
    difference = log_variance_p - log_variance_q
    distance = (mean_p - mean_q).square() * torch.exp(-log_variance_q)
    return 0.5 * (difference.exp() + distance - 1 - difference)


def standard_normal_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Computes KL(N(μ, σ²)‖N(0, 1)) = ½(μ² + σ² − 1 − log σ²) for each dimension, in nats.

    It is the VAE term of ATP-Latent (L_KL); `[..., hidden]` to the same shape.
    """
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def _gaussian_log_density(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    log_variance = log_variance.float()
    squared = (z.float() - mean.float()).square() * torch.exp(-log_variance)
    return -0.5 * (squared + log_variance + _LOG_TWO_PI)


def _masked(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values.masked_fill(~mask.bool(), 0.0)
