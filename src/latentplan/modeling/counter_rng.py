"""A counter-based random generator: each number is a function of (key, counter), never of the batch around
it.

`derive` makes a *key* from a seed or another key, a stream, which says what the numbers are for, and the
indices of that stream. The same key gives the same numbers whatever the batch size, the order of rows or
the number of devices. The mixer is SplitMix64 (Steele, Lea & Flood 2014), in wrapping 64-bit integer
arithmetic on the tensor's own device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from latentplan.modeling.configuration import LatentReasonerConfig

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


class Stream(IntEnum):
    """What the numbers of a key are for, with the indices that the key is derived from.

    Keys of different streams are never equal, since each is derived in one call, from the same number of
    integers, of which the stream is the first: see `derive`.
    """

    # From the seed of a run, a request or a rollout:
    TRAJECTORY = 1  # (problem, sample): the key of a trajectory
    ROLLOUT = 2  # (rollout): the seed of one rollout during training
    EXAMPLE = 3  # (problem, position in the training sequence): the key of a supervised example
    VALIDATION = 4  # (problem): the key of an example of the validation loss
    INTERVENTION = 5  # (problem): noise instead of latents
    EDIT = 6  # (step): noise instead of one latent step
    # From the key of a trajectory or of a supervised example:
    LATENT = 7  # (slot)
    STOP = 8  # (repetition of the stop decisions, step)
    TOKEN = 9  # (repetition of the stop decisions, answer, position in the answer)
    PLAN = 10  # (step, position in the decoded step)
    INPUT = 11  # as of TOKEN: what is drawn for the input after a token


def mix(values: torch.Tensor) -> torch.Tensor:
    """Applies SplitMix64's finaliser to an int64 tensor of any shape."""
    return _mix_(values.clone())


def _mix_(values: torch.Tensor) -> torch.Tensor:
    """Applies `mix` in place."""
    values.bitwise_xor_(_shift_right_(values.clone(), 30)).mul_(_MIX_1)
    values.bitwise_xor_(_shift_right_(values.clone(), 27)).mul_(_MIX_2)
    return values.bitwise_xor_(_shift_right_(values.clone(), 31))


def fold(*parts: int | torch.Tensor) -> torch.Tensor:
    """Folds integers (numbers or int64 tensors, broadcast together) into one int64 hash each."""
    key = torch.zeros((), dtype=torch.long)
    for part in parts:
        if isinstance(part, torch.Tensor):
            key = key.to(part.device)
        key = mix(key * 31 + part + _GOLDEN)
    return key


def derive(
    key: int | torch.Tensor,
    stream: Stream,
    first: int | torch.Tensor = 0,
    second: int | torch.Tensor = 0,
    third: int | torch.Tensor = 0,
) -> torch.Tensor:
    """Derives the key of a stream at up to three indices, all of which broadcast; int64.

    A key always takes in the same four integers, so that no two streams can share numbers, whatever their
    indices are.

    Args:
        key: a seed or a key.
        stream: what the numbers are for.
        first, second, third: the indices that `Stream` names; 0 where it has fewer.
    """
    derived = mix((key if isinstance(key, torch.Tensor) else torch.tensor(key)) + _GOLDEN)
    for part in (int(stream), first, second, third):
        if isinstance(part, torch.Tensor):
            derived = derived.to(part.device)
        derived = mix(derived * 31 + part + _GOLDEN)
    return derived


def uniform(keys: torch.Tensor, *shape: int) -> torch.Tensor:
    """Draws uniform numbers in (0, 1), float64, `[*keys.shape, *shape]`."""
    counters = torch.arange(1, 1 + math.prod(shape), device=keys.device, dtype=torch.long) * _GOLDEN
    bits = mix(keys.unsqueeze(-1) + counters)
    return ((_shift_right_(bits, 12).double() + 0.5) * 2.0**-52).reshape(*keys.shape, *shape)


def gaussian(keys: torch.Tensor, *shape: int) -> torch.Tensor:
    """Draws standard normal numbers, float32, `[*keys.shape, *shape]`, by the Box-Muller transform."""
    count = math.prod(shape)
    half = (count + 1) // 2
    pairs = uniform(keys, 2 * half)
    radius = (-2 * pairs[..., :half].log()).sqrt()
    angle = 2 * math.pi * pairs[..., half:]
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return normal[..., :count].reshape(*keys.shape, *shape).float()


def gumbel(keys: torch.Tensor, count: int, first: int = 0) -> torch.Tensor:
    """Draws standard Gumbel numbers of keys `[rows]`, from the index `first` on: `[rows, count]`, float32.

    A number is -log(E), where E = -log(1 - w) is exponential for a uniform w. Large numbers come from w near
    0, where float32 is precise; -log(-log(u)) would take them from u near 1, where float32 is coarse.
    """
    counters = torch.arange(first + 1, first + 1 + count, device=keys.device, dtype=torch.long) * _GOLDEN
    bits = _shift_right_(_mix_(keys.unsqueeze(-1) + counters), 11)
    # At most 1 - 2**-24, the largest float32 below 1. In place: the noise of a token is as large as
    # the vocabulary.
    uniform = bits.float().mul_(2.0**-53).add_(2.0**-54).clamp_(max=1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def slots(keys: torch.Tensor, num_slots: int, hidden_size: int) -> torch.Tensor:
    """Draws the standard normal noise of latent slots, `[rows, slots, hidden]`; keys are `[rows]`."""
    slot = torch.arange(num_slots, device=keys.device)
    return gaussian(derive(keys.unsqueeze(1), Stream.LATENT, slot), hidden_size)


@dataclass
class Draws:
    """The random numbers, or the keys of them, of each row's trajectory; None where nothing is random.

    Attributes:
        latents: `[rows, slots, hidden]` float32, standard normal noise.
        stops: `[rows, steps]` int64, the keys of the stop decisions.
        tokens: `[rows, tokens]` int64, the keys of the answer tokens.
        inputs: `[rows, tokens]` int64, the keys of an input rule's draws after each token.
    """

    latents: torch.Tensor | None = None
    stops: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    inputs: torch.Tensor | None = None


def thinking_draws(
    config: LatentReasonerConfig, keys: torch.Tensor, again: torch.Tensor | int = 0, latents: bool = True
) -> Draws:
    """Makes the random numbers of chains of latents.

    Args:
        config: of the reasoner.
        keys: `[rows]`, of the trajectories.
        again: `[rows]` or one number, the index of each row's repetition of the chain's stop decisions.
        latents: whether the latents are drawn.
    """
    steps = torch.arange(config.num_slots // config.latents_per_step, device=keys.device)
    if isinstance(again, torch.Tensor):
        again = again.unsqueeze(1)
    return Draws(
        latents=slots(keys, config.num_slots, config.hidden_size) if latents else None,
        stops=derive(keys.unsqueeze(1), Stream.STOP, again, steps),
    )


def token_draws(
    keys: torch.Tensor, tokens: int, again: torch.Tensor | int = 0, answer: torch.Tensor | int = 0
) -> Draws:
    """Derives the keys of the tokens of answers.

    Args:
        keys: `[rows]`, of the trajectories.
        tokens: of each answer.
        again, answer: `[rows]` or one number each, the index of each row's repetition of the stop decisions,
            and of its answer to the chain.
    """
    position = torch.arange(tokens, device=keys.device)
    again, answer = (
        part.unsqueeze(1) if isinstance(part, torch.Tensor) else part for part in (again, answer)
    )
    return Draws(
        tokens=derive(keys.unsqueeze(1), Stream.TOKEN, again, answer, position),
        inputs=derive(keys.unsqueeze(1), Stream.INPUT, again, answer, position),
    )


def columns(values: torch.Tensor, start: int | torch.Tensor, size: int) -> torch.Tensor:
    """Returns `size` columns of `[rows, n, ...]` from `start` on, a number for all rows or `[rows]`."""
    if not isinstance(start, torch.Tensor):
        return values[:, start : start + size]
    at = start.unsqueeze(1) + torch.arange(size, device=values.device)
    return values[torch.arange(values.shape[0], device=values.device).unsqueeze(1), at]


def of_same_norm(keys: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Draws Gaussian noise `[rows, slots, hidden]` with the norm of each slot's latent; keys `[rows]`."""
    drawn = gaussian(keys, *latents.shape[1:])
    return drawn * (latents.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


def _shift_right_(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Shifts right in place and fills with zeros, where torch's own shift repeats the sign bit."""
    return values.bitwise_right_shift_(bits).bitwise_and_((1 << (64 - bits)) - 1)
