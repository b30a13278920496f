"""Counter-based noise: every random number is a function of (key, counter), never of the batch around it.

A *key* is made of integers such as (seed, problem, sample); the counter is the slot, dimension or token. The
same key gives the same numbers whatever the batch size, the order of rows or the number of devices. The mixer
is SplitMix64 (Steele, Lea & Flood 2014), in wrapping 64-bit integer arithmetic on the tensor's own device.
"""

from __future__ import annotations

import math

import torch

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def mix(values: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser on an int64 tensor of any shape."""
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


def fold(*parts: int | torch.Tensor) -> torch.Tensor:
    """Folds integers (numbers or int64 tensors, broadcast together) into one int64 key each."""
    key = torch.zeros((), dtype=torch.long)
    for part in parts:
        if isinstance(part, torch.Tensor):
            key = key.to(part.device)
        key = mix(key * 31 + part + _GOLDEN)
    return key


def uniform(keys: torch.Tensor, *shape: int) -> torch.Tensor:
    """Uniform numbers in (0, 1), float64, `[*keys.shape, *shape]`."""
    counters = torch.arange(1, 1 + math.prod(shape), device=keys.device, dtype=torch.long) * _GOLDEN
    bits = mix(keys.unsqueeze(-1) + counters)
    return ((_shift_right(bits, 12).double() + 0.5) * 2.0**-52).reshape(*keys.shape, *shape)


def uniform_at(keys: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The numbers of `uniform(keys, n)` at one place a row, `[rows]` from keys and places `[rows]`."""
    return uniform(keys + places * _GOLDEN, 1)[:, 0]


def gaussian(keys: torch.Tensor, *shape: int) -> torch.Tensor:
    """Standard normal numbers, float32, `[*keys.shape, *shape]`, by Box and Muller's transform."""
    count = math.prod(shape)
    half = (count + 1) // 2
    pairs = uniform(keys, 2 * half)
    radius = (-2 * pairs[..., :half].log()).sqrt()
    angle = 2 * math.pi * pairs[..., half:]
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return normal[..., :count].reshape(*keys.shape, *shape).float()


def slots(keys: torch.Tensor, num_slots: int, hidden_size: int) -> torch.Tensor:
    """Standard normal noise of latent slots, `[rows, slots, hidden]`, a function of (key, slot) alone."""
    return gaussian(fold(keys.unsqueeze(1), torch.arange(num_slots, device=keys.device)), hidden_size)


def of_same_norm(keys: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Gaussian noise `[rows, slots, hidden]`, each slot with the norm of the latent there; keys `[rows]`."""
    drawn = gaussian(keys, *latents.shape[1:])
    return drawn * (latents.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift: torch's own shifts in the sign bit."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
