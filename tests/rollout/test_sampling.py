import math

import pytest
import torch

from latentplan.modeling import noise
from latentplan.rollout.sampling import Sampling, draw, log_softmax

PROBABILITIES = torch.tensor([0.1, 0.0, 0.45, 0.05, 0.4])


def test_draws_have_the_exact_probabilities():
    """Uniform numbers on a fine even grid: each class is drawn on its share of the grid, to one grid cell."""
    cells = 10_000
    uniform = (torch.arange(cells).double() + 0.5) / cells
    drawn = draw(PROBABILITIES.log().expand(cells, -1), uniform, temperature=1.0)
    shares = torch.bincount(drawn, minlength=5) / cells
    torch.testing.assert_close(shares, PROBABILITIES, atol=1.5 / cells, rtol=0)


def test_draws_follow_the_probabilities_with_the_noise_of_the_engine():
    uniform = noise.uniform(torch.arange(20_000), 1)[:, 0]
    drawn = draw(PROBABILITIES.log().expand(20_000, -1), uniform, temperature=1.0)
    shares = torch.bincount(drawn, minlength=5) / 20_000
    assert shares[1] == 0
    assert float((shares - PROBABILITIES).abs().max()) < 5 * math.sqrt(0.25 / 20_000)


@pytest.mark.parametrize("uniform", [1e-16, 0.5, 1 - 2.0**-53])
def test_the_ends_of_the_interval_give_possible_classes(uniform):
    log_probs = torch.log_softmax(torch.tensor([[-1e4, 1.0, 2.0, -1e4]]), dim=-1)
    assert int(draw(log_probs, torch.tensor([uniform]).double(), temperature=1.0)) in (1, 2)


def test_temperature_0_takes_the_most_probable():
    log_probs = PROBABILITIES.log().expand(3, -1)
    assert draw(log_probs, torch.tensor([0.01, 0.5, 0.99]), temperature=0.0).tolist() == [2, 2, 2]


def test_temperature_divides_logits():
    logits = torch.tensor([0.0, math.log(2.0)])
    torch.testing.assert_close(log_softmax(logits, 0.5).exp(), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(log_softmax(logits, 1.0).exp(), torch.tensor([1 / 3, 2 / 3]))
    # Greedy trajectories are scored as if sampled at 1.
    torch.testing.assert_close(log_softmax(logits, 0.0), log_softmax(logits, 1.0))
    assert log_softmax(logits.bfloat16(), 1.0).dtype == torch.float32


def test_greedy_settings():
    assert Sampling.greedy(5) == Sampling(temperature=0.0, latent_temperature=0.0, max_new_tokens=5)
