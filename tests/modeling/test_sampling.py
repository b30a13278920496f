import math

import pytest
import torch

from latentplan.modeling import counter_rng, sampling
from latentplan.modeling.sampling import Sampling, choose, draw, log_softmax

PROBABILITIES = torch.tensor([0.1, 0.0, 0.45, 0.05, 0.4])
COUNT = 40_000


def keys(count=COUNT):
    return counter_rng.derive(torch.arange(count), counter_rng.Stream.TOKEN)


@pytest.mark.parametrize("shift", [0.0, 7.0, -300.0])
def test_draws_follow_the_probabilities_whether_normalised_or_not(shift):
    drawn = draw((PROBABILITIES.log() + shift).expand(COUNT, -1), keys(), temperature=1.0)
    counts = torch.bincount(drawn, minlength=5)
    assert counts[1] == 0
    expected = PROBABILITIES * COUNT
    chi_square = ((counts - expected) ** 2 / expected)[PROBABILITIES > 0].sum()
    assert chi_square < 21.1  # 1 in 10,000 with 3 degrees of freedom


def test_the_temperature_divides_logits():
    logits = torch.tensor([0.0, math.log(2.0)])
    drawn = draw(logits.expand(COUNT, -1), keys(), temperature=0.5)  # probabilities 1/5 and 4/5
    assert abs(float(drawn.float().mean()) - 0.8) < 5 * math.sqrt(0.16 / COUNT)
    torch.testing.assert_close(log_softmax(logits, 0.5).exp(), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(log_softmax(logits, 1.0).exp(), torch.tensor([1 / 3, 2 / 3]))
    # Greedy trajectories are scored as if sampled at 1.
    torch.testing.assert_close(log_softmax(logits, 0.0), log_softmax(logits, 1.0))
    assert log_softmax(logits.bfloat16(), 1.0).dtype == torch.float32


def test_rows_may_have_temperatures_of_their_own():
    logits = torch.randn(300, 50, generator=torch.Generator().manual_seed(0))
    temperatures = torch.tensor([0.0, 1.0, 2.5]).repeat(100)
    together = draw(logits, keys(300), temperatures)
    for start, temperature in enumerate((0.0, 1.0, 2.5)):
        assert torch.equal(together[start::3], draw(logits[start::3], keys(300)[start::3], temperature))


def test_temperature_0_takes_the_most_probable():
    log_probs = PROBABILITIES.log().expand(3, -1)
    assert draw(log_probs, None, temperature=0.0).tolist() == [2, 2, 2]


def test_a_draw_is_the_same_however_many_classes_are_handled_at_once(monkeypatch):
    logits = torch.randn(9, 1000, generator=torch.Generator().manual_seed(0))
    whole = draw(logits, keys(9), 1.0)
    for size in (1, 9 * 7, 9 * 999):
        monkeypatch.setattr(sampling, "_NUMBERS_AT_ONCE", {"cpu": size})
        assert torch.equal(draw(logits, keys(9), 1.0), whole)
    for row in range(9):
        assert int(draw(logits[row : row + 1], keys(9)[row : row + 1], 1.0)) == int(whole[row])


def test_rounding_of_logits_hardly_changes_a_draw():
    """Of inverse distribution functions 11 to 47% of the draws change at such a vocabulary."""
    logits = torch.randn(400, 20_000, generator=torch.Generator().manual_seed(0))
    changed = draw(logits, keys(400), 1.0) != draw(logits.bfloat16(), keys(400), 1.0)
    assert float(changed.float().mean()) < 0.02


def test_the_log_probability_of_a_draw_is_that_of_its_class():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    token, log_prob = choose(logits, keys(5), 2.0)
    expected = torch.stack(
        [torch.log_softmax(row / 2, -1)[index] for row, index in zip(logits, token, strict=True)]
    )
    torch.testing.assert_close(log_prob, expected)


def test_greedy_settings():
    assert Sampling.greedy(5) == Sampling(temperature=0.0, latent_temperature=0.0, max_new_tokens=5)
