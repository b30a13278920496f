import pytest

from latentplan.encoding.curriculum import Curriculum, split_chain


def as_lists(split):
    groups, rest = split
    return [list(group) for group in groups], list(rest)


def test_the_first_steps_are_latent_and_the_rest_is_text():
    assert as_lists(split_chain(4, stage=2, max_latent_steps=10)) == ([[0], [1]], [2, 3])


def test_stage_0_leaves_every_step_as_text():
    assert as_lists(split_chain(3, stage=0, max_latent_steps=10)) == ([], [0, 1, 2])


@pytest.mark.parametrize("stage", [3, 4, 10, 99])
def test_a_chain_no_longer_than_the_stage_uses_a_group_for_each_step(stage):
    assert as_lists(split_chain(3, stage, max_latent_steps=10)) == ([[0], [1], [2]], [])


def test_a_chain_of_exactly_the_most_latent_steps_is_not_merged():
    assert as_lists(split_chain(3, stage=3, max_latent_steps=3)) == ([[0], [1], [2]], [])


def test_a_longer_chain_puts_its_rest_into_the_last_step_only_at_the_last_stage():
    assert as_lists(split_chain(5, stage=2, max_latent_steps=3)) == ([[0], [1]], [2, 3, 4])
    assert as_lists(split_chain(5, stage=3, max_latent_steps=3)) == ([[0], [1], [2, 3, 4]], [])


def test_no_steps_or_no_latent_steps():
    assert as_lists(split_chain(0, stage=3, max_latent_steps=3)) == ([], [])
    assert as_lists(split_chain(2, stage=3, max_latent_steps=0)) == ([], [0, 1])


@pytest.mark.parametrize("num_steps", range(7))
@pytest.mark.parametrize("stage", range(6))
def test_every_step_is_in_one_place_and_in_order(num_steps, stage):
    groups, rest = as_lists(split_chain(num_steps, stage, max_latent_steps=4))
    assert [step for group in groups for step in group] + rest == list(range(num_steps))
    assert len(groups) <= min(stage, 4)


def test_phases_begin_where_the_ones_before_end():
    curriculum = Curriculum(stages=(1, 3, 2), steps=(4, 1, 2))
    assert curriculum.total_steps == 7
    assert curriculum.starts == [0, 4, 5]
    assert [curriculum.phase(step) for step in range(9)] == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert [curriculum.stage(step) for step in range(7)] == [1, 1, 1, 1, 3, 2, 2]


def test_constant():
    assert [Curriculum.constant(2, 3).stage(step) for step in range(5)] == [2] * 5


@pytest.mark.parametrize(
    ("stages", "steps", "message"),
    [
        ((1, 2), (5,), "one duration for each stage"),
        ((), (), "one duration for each stage"),
        ((1,), (0,), "at least one optimisation step"),
        ((-1,), (3,), "0 or more"),
    ],
)
def test_impossible_curricula_are_refused(stages, steps, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(stages, steps)
