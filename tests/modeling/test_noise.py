import math

import pytest
import torch

from latentplan.modeling import counter_rng


def test_noise_is_a_function_of_the_key_alone():
    keys = torch.tensor([3, 1, -7, 2**62])
    together = counter_rng.gaussian(keys, 4, 5)
    assert together.shape == (4, 4, 5)
    assert torch.equal(counter_rng.gaussian(keys.flip(0), 4, 5), together.flip(0))
    for index, key in enumerate(keys):
        assert torch.equal(counter_rng.gaussian(key[None], 4, 5)[0], together[index])
        assert torch.equal(counter_rng.uniform(key[None], 9)[0], counter_rng.uniform(keys, 9)[index])


def test_uniform_numbers_do_not_depend_on_how_many_are_drawn():
    key = torch.tensor([42])
    assert torch.equal(counter_rng.uniform(key, 3)[0], counter_rng.uniform(key, 100)[0, :3])


def test_torch_s_own_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = counter_rng.gaussian(torch.tensor([1]), 8)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(counter_rng.gaussian(torch.tensor([1]), 8), first)


def test_gaussian_moments():
    numbers = counter_rng.gaussian(torch.arange(200), 1001).double()
    count = numbers.numel()
    assert abs(numbers.mean()) < 5 / math.sqrt(count)
    assert abs(numbers.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((numbers**3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((numbers**4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert 4 < numbers.abs().max() < 7


def test_uniform_moments_and_range():
    numbers = counter_rng.uniform(torch.arange(100), 1000)
    assert numbers.dtype == torch.float64
    assert 0 < numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 5 / math.sqrt(12 * numbers.numel())
    assert abs(numbers.var() - 1 / 12) < 0.002


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_neighbouring_keys_and_counters_are_independent():
    numbers = counter_rng.gaussian(torch.arange(100), 1000)
    bound = 5 / math.sqrt(numbers.numel())
    assert abs(correlation(numbers[:-1], numbers[1:])) < bound
    assert abs(correlation(numbers[:, :-1], numbers[:, 1:])) < bound
    assert abs(correlation(numbers[:, :500], numbers[:, 500:])) < bound
    uniform = counter_rng.uniform(torch.arange(100), 1000)
    # Keys one apart must not give the same sequence one place on.
    assert abs(correlation(uniform[:-1, 1:], uniform[1:, :-1])) < bound
    assert not torch.isclose(uniform[0, 1:], uniform[1, :-1]).any()


def test_gumbel_moments_and_tails():
    keys = counter_rng.derive(torch.arange(2000), counter_rng.Stream.TOKEN)
    numbers = counter_rng.gumbel(keys, 1000).double()
    count, euler = numbers.numel(), 0.5772156649
    assert numbers.shape == (2000, 1000)
    assert torch.isfinite(numbers).all()
    assert abs(numbers.mean() - euler) < 5 * math.pi / math.sqrt(6 * count)
    assert abs(numbers.var() - math.pi**2 / 6) < 0.02
    # P(a number > t) = 1 - exp(-exp(-t)); both tails, to 5 standard errors.
    for threshold in (-2.0, -1.0, 0.0, 2.0, 5.0, 8.0, 10.0):
        expected = -math.expm1(-math.exp(-threshold))
        share = float((numbers > threshold).double().mean())
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / count), threshold
    # The largest of n numbers minus log(n) is a Gumbel number again.
    largest = numbers.max(dim=1).values - math.log(1000)
    assert abs(largest.mean() - euler) < 5 * math.pi / math.sqrt(6 * 2000)


def test_gumbel_numbers_are_those_from_an_index_on():
    keys = torch.tensor([42, -3])
    assert torch.equal(counter_rng.gumbel(keys, 10)[:, 4:], counter_rng.gumbel(keys, 6, first=4))


@pytest.mark.parametrize("other", [(1, 2, 4), (2, 1, 3), (1, 3, 2), (1, 2), (1, 2, 3, 0), (-1, 2, 3)])
def test_every_part_of_a_key_and_its_place_count(other):
    assert int(counter_rng.fold(1, 2, 3)) != int(counter_rng.fold(*other))


def test_keys_of_a_grid_are_all_different():
    seeds, problems, samples = torch.arange(10), torch.arange(100), torch.arange(16)
    keys = counter_rng.fold(seeds[:, None, None], problems[None, :, None], samples[None, None, :])
    assert keys.shape == (10, 100, 16)
    assert keys.unique().numel() == 16_000
    assert int(keys[3, 7, 5]) == int(counter_rng.fold(3, 7, 5))


def test_the_mixer_is_splitmix64():
    # Reference outputs of SplitMix64 with seed 1234567 (the published C code).
    golden = -7046029254386353131
    states = torch.tensor(1234567) + golden * torch.arange(1, 4)
    outputs = [value & (2**64 - 1) for value in counter_rng.mix(states).tolist()]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_slot_has_the_same_noise_however_many_slots_follow():
    keys = counter_rng.derive(3, counter_rng.Stream.EXAMPLE, torch.arange(5))
    assert torch.equal(counter_rng.slots(keys, 8, 6)[:, :3], counter_rng.slots(keys, 3, 6))


def test_keys_stay_where_the_tensors_are():
    """A number among the parts has no device; what is on a GPU must neither leave it nor wait for it."""
    keys = torch.arange(3, device="meta")
    token, example = counter_rng.Stream.TOKEN, counter_rng.Stream.EXAMPLE
    for key in (
        counter_rng.fold(7, keys, 2),
        counter_rng.derive(keys, token, 1, 2),
        counter_rng.derive(7, example, 3, keys),
        counter_rng.derive(keys, token, keys, 0, keys),
    ):
        assert key.device.type == "meta"


def test_no_two_streams_and_indices_have_the_same_key():
    """Of one seed and of one key alike: whatever the stream and its three indices, small or large."""
    index = torch.tensor([*range(24), 10**3, 10**6, 10**9, 2**40])
    for key in (0, 42, 2**62, -1):
        keys = torch.stack(
            [
                counter_rng.derive(key, stream, index[:, None, None], index[:, None], index)
                for stream in counter_rng.Stream
            ]
        )
        assert keys.unique().numel() == keys.numel() == len(counter_rng.Stream) * len(index) ** 3


def test_keys_derived_from_keys_are_those_of_no_other_depth():
    index, streams = torch.arange(30), list(counter_rng.Stream)
    first = torch.stack(
        [counter_rng.derive(7, stream, index[:, None], index) for stream in streams]
    ).flatten()
    second = torch.stack(
        [counter_rng.derive(first[::7], stream, index[:, None]) for stream in streams]
    ).flatten()
    together = torch.cat([torch.tensor([7]), first, second])
    assert together.unique().numel() == together.numel()
