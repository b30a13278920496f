import pytest
import torch

from latentplan.rollout.edits import EDITS, Edit, apply, in_words


@pytest.fixture
def chain():
    """Three steps of two latents of width 4; latent i of step s is full of 10·s + i."""
    return torch.tensor([[[10.0 * step + slot] * 4 for slot in (1, 2)] for step in (1, 2, 3)])


def first_entries(chain):
    return chain[:, :, 0].tolist()


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit("delete", (2,)), [[11, 12], [31, 32]]),
        (Edit("delete", (1, 2, 3)), []),
        (Edit("zero", (1, 3)), [[0, 0], [21, 22], [0, 0]]),
        (Edit("swap", (1, 3)), [[31, 32], [21, 22], [11, 12]]),
        (Edit("keep", (0,)), []),
        (Edit("keep", (2,)), [[11, 12], [21, 22]]),
        (Edit("splice", (2,)), [[11, 12], [-2, -2], [31, 32]]),
        (Edit("splice", (3,), from_step=1), [[11, 12], [21, 22], [-1, -1]]),
        (Edit("splice"), [[-1, -1], [-2, -2]]),
        (Edit("move", share=0.5), [[5, 5.5], [9.5, 10], [31, 32]]),
        (Edit("move", (2,), share=1.0), [[11, 12], [-2, -2], [31, 32]]),
        (Edit("move", share=0.0), [[11, 12], [21, 22], [31, 32]]),
    ],
)
def test_edits_by_hand(chain, edit, expected):
    before = chain.clone()
    other = torch.stack([torch.full((2, 4), -1.0), torch.full((2, 4), -2.0)])
    assert first_entries(apply(chain, edit, other)) == expected
    assert torch.equal(chain, before)


def test_noise_has_the_latent_s_own_length_and_follows_from_the_seed(chain):
    noisy = apply(chain, Edit("noise", (2,), seed=1))
    assert torch.equal(noisy[[0, 2]], chain[[0, 2]])
    assert torch.allclose(noisy[1].norm(dim=-1), chain[1].norm(dim=-1))
    assert torch.equal(noisy, apply(chain, Edit("noise", (2,), seed=1)))
    assert not torch.allclose(noisy[1], apply(chain, Edit("noise", (2,), seed=2))[1])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("delete", (4,)), "there is no step 4: the chain has 3 steps"),
        (Edit("zero"), "does not say which steps"),
        (Edit("swap", (1,)), "two different steps"),
        (Edit("swap", (1, 1)), "two different steps"),
        (Edit("keep", (4,)), "how many of the 3 steps"),
        (Edit("splice", (1,)), "another question"),
        (Edit("polish", (1,)), "there is no edit 'polish'; there are delete"),
    ],
)
def test_edit_that_does_not_fit_is_refused(chain, edit, message):
    with pytest.raises(ValueError, match=message):
        apply(chain, edit)


def test_splice_from_a_step_that_is_not_there(chain):
    with pytest.raises(ValueError, match="the other question has no step 3: its chain has 1"):
        apply(chain, Edit("splice", (3,)), chain[:1])


def test_move_between_latents_of_different_shapes_is_refused(chain):
    with pytest.raises(ValueError, match="are 2 of width 4 and 1 of width 4: there is no way"):
        apply(chain, Edit("move"), chain[:, :1])


def test_edits_in_words():
    assert in_words(Edit("move", model="rl", share=0.25)) == "all steps moved 25% towards rl"
    assert in_words(Edit("zero", (1,))) == "step 1 set to zero"
    assert in_words(Edit("delete", (1, 2, 3))) == "steps 1, 2 and 3 deleted"
    assert in_words(Edit("swap", (1, 2), regenerate=True)) == (
        "steps 1 and 2 exchanged, the steps after it regenerated"
    )
    assert in_words(Edit("keep", (0,))) == "no step kept"
    assert in_words(Edit("splice", (2,), from_step=1)) == "step 2 from the other question (its step 1)"
    assert all(in_words(Edit(kind, (1, 2))) for kind in EDITS if kind != "keep")
