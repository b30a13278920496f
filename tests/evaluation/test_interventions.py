"""What latents are replaced by: small chains by hand, and thinking on from foreign latents."""

import pytest
import torch

from latentplan.rollout.interventions import (
    all_but_last_step,
    first_steps,
    last_step_only,
    of_an_equal_chain,
    regenerate,
    reversed_steps,
    rotated_steps,
)
from latentplan.rollout.solve import GreedyChains, greedy_chains

ALL = slice(0, 3)


@pytest.fixture
def chains():
    """Chains of 3, 1 and 3 steps of two latents each; latent s of row r is 10·r + s."""
    latents = (10 * torch.arange(3).unsqueeze(1) + torch.arange(6)).float().unsqueeze(2)
    mask = (torch.arange(6) < torch.tensor([6, 2, 6]).unsqueeze(1)).long()
    return GreedyChains([5, 2, 4], latents, mask, [None] * 3)


def used(latents: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    return [row[:, 0][kept.bool()].int().tolist() for row, kept in zip(latents, mask, strict=True)]


@pytest.mark.parametrize(
    ("intervention", "expected"),
    [
        (first_steps(0, 2), [[], [], []]),
        (first_steps(1, 2), [[0, 1], [10, 11], [20, 21]]),
        (first_steps(2, 2), [[0, 1, 2, 3], [10, 11], [20, 21, 22, 23]]),
        (last_step_only(2), [[4, 5], [10, 11], [24, 25]]),
        (all_but_last_step(2), [[0, 1, 2, 3], [], [20, 21, 22, 23]]),
        (reversed_steps(2), [[4, 5, 2, 3, 0, 1], [10, 11], [24, 25, 22, 23, 20, 21]]),
        (rotated_steps(2), [[4, 5, 0, 1, 2, 3], [10, 11], [24, 25, 20, 21, 22, 23]]),
    ],
)
def test_cut_and_reordered(chains, intervention, expected):
    before = chains.latents.clone()
    assert used(*intervention(chains, ALL, 0)) == expected
    assert used(*intervention(chains, slice(1, 2), 0)) == expected[1:2]
    assert torch.equal(chains.latents, before)


def test_equal_chains_are_exchanged_among_themselves(chains):
    # Rows 0 and 2 swap; no other chain is as short as row 1, which gets the one before it.
    assert used(*of_an_equal_chain(chains, ALL, 0)) == [
        [20, 21, 22, 23, 24, 25],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]


def test_a_chain_that_stopped_at_once_stays_empty(chains):
    mask = torch.zeros_like(chains.slot_mask)
    empty = GreedyChains(chains.indices, chains.latents, mask, chains.plans)
    for intervention in (last_step_only(2), all_but_last_step(2), reversed_steps(2)):
        assert used(*intervention(empty, ALL, 0)) == [[], [], []]


@pytest.mark.parametrize("batch_size", [2, 100])
def test_thinking_on_from_one_s_own_latents_changes_nothing(tiny_model, problems, batch_size):
    model = tiny_model("atp_latent")
    own = greedy_chains(model, [problem.question for problem in problems[:5]], batch_size=5)
    questions = [problems[place].question for place in own.indices]
    mask = own.slot_mask.unsqueeze(2)
    for held in (0, 2, 6):
        again = regenerate(model, questions, own, torch.full((5,), held), batch_size)
        torch.testing.assert_close(again.latents * mask, own.latents * mask, atol=1e-5, rtol=1e-5)
    foreign = GreedyChains(own.indices, own.latents.roll(1, 0), own.slot_mask, own.plans)
    moved = regenerate(model, questions, foreign, torch.full((5,), 2), batch_size)
    assert torch.equal(moved.latents[:, :2], foreign.latents[:, :2])
    longer = own.slot_mask[:, 2].bool()
    assert not torch.allclose(moved.latents[longer, 2], own.latents[longer, 2], atol=1e-3)
