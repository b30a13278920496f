from collections import Counter

import pytest
import torch

from latentplan.encoding.curriculum import Curriculum
from latentplan.modeling import counter_rng
from latentplan.training.samplers import Place, PlacedProblems, PlanSampler, StageCollator, shuffled
from latentplan.training.trainable_model import make_processor


def test_positions_map_to_stages_by_effective_batch():
    sampler = PlanSampler(10, Curriculum((1, 2), (2, 1)), effective_batch=4, seed=0)
    places = list(sampler)
    assert len(sampler) == len(places) == 3 * 4
    assert [place.position for place in places] == list(range(12))
    assert [place.stage for place in places] == [1] * 8 + [2] * 4


def test_every_pass_is_another_permutation():
    sampler = PlanSampler(7, Curriculum.constant(0, 10), effective_batch=3, seed=5)
    order = [place.index for place in sampler]
    passes = [order[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(part) == list(range(7)) for part in passes)
    assert len({tuple(part) for part in passes}) == 4
    assert passes == [shuffled(7, 5, number) for number in range(4)]


def test_the_sequence_follows_from_the_seed_alone():
    curriculum = Curriculum.constant(1, 4)
    first = list(PlanSampler(9, curriculum, 4, seed=1))
    torch.manual_seed(123)
    assert list(PlanSampler(9, curriculum, 4, seed=1)) == first
    assert list(PlanSampler(9, curriculum, 4, seed=2)) != first
    # Another batch size sees the problems in the same order.
    assert [place.index for place in PlanSampler(9, curriculum, 2, seed=1)] == [p.index for p in first[:8]]


def test_more_rows_than_problems_in_a_batch():
    order = Counter(place.index for place in PlanSampler(3, Curriculum.constant(0, 2), 6, seed=0))
    assert order == {0: 4, 1: 4, 2: 4}


def test_no_problems_are_refused():
    with pytest.raises(ValueError, match="no problem to train on"):
        PlanSampler(0, Curriculum.constant(0, 1), 1, seed=0)


def collator_and_places(system, tokenizer, problems, seed):
    processor = make_processor(tokenizer, system.reasoner)
    collator = StageCollator(processor, system.method, system.reasoner.config, seed)
    return collator, PlacedProblems([processor(problem) for problem in problems])


def test_rows_are_laid_out_at_the_stage_of_their_place(make_system, clock_tokenizer, mixed_problems):
    collator, placed = collator_and_places(make_system("atp_latent"), clock_tokenizer, mixed_problems, seed=0)
    assert len(placed) == 6
    batch = collator([placed[Place(index=1, stage=2, position=40)]])  # a problem of 4 steps
    assert batch["slot_mask"].tolist() == [[1, 1, 1, 1]]
    assert batch["step_index"].tolist() == [0, 1]


def test_noise_keys_follow_from_seed_problem_and_position(make_system, clock_tokenizer, mixed_problems):
    system = make_system("coconut")
    collator, placed = collator_and_places(system, clock_tokenizer, mixed_problems, seed=3)
    other, _ = collator_and_places(system, clock_tokenizer, mixed_problems, seed=4)
    items = [placed[Place(2, 1, 7)], placed[Place(4, 1, 8)]]
    keys = collator(items)["noise_keys"].tolist()
    assert keys == [
        int(counter_rng.derive(3, counter_rng.Stream.EXAMPLE, *pair)) for pair in ((2, 7), (4, 8))
    ]
    assert collator(items[1:])["noise_keys"].tolist() == keys[1:]
    assert other(items)["noise_keys"].tolist() != keys
