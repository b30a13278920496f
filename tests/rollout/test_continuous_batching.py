"""Rows that join and leave a running batch are the trajectories that `generate` gives them."""

from __future__ import annotations

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.rollout.continuous_batching import ContinuousBatch, Row, rows_of
from latentplan.rollout.engine import generate
from latentplan.rollout.solve import question_batch

GREEDY, WARM = Sampling.greedy(6), Sampling(1.0, 1.0, 6)
MIXED = [GREEDY, WARM, Sampling(0.7, 0.0, 3), Sampling(0.0, 1.5, 5), WARM, GREEDY]


def asked(model, question):
    """The ids of a question, with its frame."""
    return question_batch(model, [question])[0][0].tolist()


def alone(model, question, sampling, seed, samples):
    """What `generate` gives: latents in use and ids of each sample."""
    ids, mask = question_batch(model, [question])
    rolled = generate(
        model.reasoner, ids, mask, torch.tensor([0]), seed=seed, sampling=sampling, draws=samples
    )
    return [
        (
            rolled.latents[row][rolled.slot_mask[row].bool()],
            rolled.answer_ids[row][rolled.answer_mask[row] == 1],
        )
        for row in range(samples)
    ]


def assert_same(row: Row, expected) -> None:
    latents, ids = expected
    assert row.answer_ids == ids.tolist()
    assert len(row.latents) == len(latents)
    if row.latents:
        torch.testing.assert_close(torch.stack(row.latents), latents, rtol=1e-4, atol=1e-4)


def run_to_the_end(batch: ContinuousBatch) -> None:
    for _ in range(100):
        if not batch.rows:
            return
        batch.step()
    raise AssertionError("rows that never end")


@pytest.mark.parametrize("method", ["atp_latent", "coconut", "colar", "pause", "cot", "no_cot"])
def test_whoever_joins_when_everyone_gets_their_own_trajectory(
    method, make_system, as_loaded, mixed_problems
):
    model = as_loaded(make_system(method))
    batch = ContinuousBatch(model.reasoner)
    asking = [
        (
            rows_of(asked(model, problem.question), seed, 0, samples, sampling),
            problem,
            sampling,
            seed,
            samples,
        )
        for seed, (problem, sampling, samples) in enumerate(
            zip(mixed_problems, MIXED, (1, 3, 2, 1, 9, 1), strict=True)
        )
    ]
    for rows, *_ in asking:
        batch.admit(rows)
        batch.step()
    run_to_the_end(batch)
    for rows, problem, sampling, seed, samples in asking:
        for row, expected in zip(rows, alone(model, problem.question, sampling, seed, samples), strict=True):
            assert_same(row, expected)


@pytest.mark.parametrize("family", ["gpt2", "bloom", "gemma2"])
def test_other_backbones_and_narrow_windows(family, make_system, as_loaded, mixed_problems):
    backbone = {"sliding_window": 5} if family == "gemma2" else {}
    model = as_loaded(make_system("atp_latent", family=family, backbone=backbone))
    batch, asking = ContinuousBatch(model.reasoner), []
    for seed, problem in enumerate(mixed_problems[:4]):
        asking.append((rows_of(asked(model, problem.question), seed, 0, 2, WARM), problem, seed))
        batch.admit(asking[-1][0])
        batch.step()
    run_to_the_end(batch)
    for rows, problem, seed in asking:
        for row, expected in zip(rows, alone(model, problem.question, WARM, seed, 2), strict=True):
            assert_same(row, expected)


def test_rows_that_are_told_to_leave_leave_and_the_others_do_not_notice(
    make_system, as_loaded, mixed_problems
):
    model = as_loaded(make_system("atp_latent"))
    batch = ContinuousBatch(model.reasoner)
    rows = [rows_of(asked(model, each.question), 5, 0, 4, WARM) for each in mixed_problems[:4]]
    batch.admit([row for group in rows for row in group])
    for row in [*rows[0], *rows[1], *rows[3]]:
        row.ended = True
    batch.step()
    assert len(batch.rows) <= 4
    run_to_the_end(batch)
    for row, expected in zip(rows[2], alone(model, mixed_problems[2].question, WARM, 5, 4), strict=True):
        assert_same(row, expected)
    assert not any(len(row.answer_ids) > 1 for row in rows[0])


def test_a_limit_on_latents_and_tokens_together(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("coconut"))  # always its 6 latents
    question = asked(model, mixed_problems[0].question)
    rows = [Row(question, 1, Sampling.greedy(10), max_tokens=limit) for limit in (4, 6, 8)]
    batch = ContinuousBatch(model.reasoner)
    batch.admit(rows)
    run_to_the_end(batch)
    assert [(len(row.latents), len(row.answer_ids)) for row in rows] == [(4, 0), (6, 0), (6, 2)]


def test_a_batch_that_never_empties_does_not_grow(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("atp_latent"))
    batch, widths = ContinuousBatch(model.reasoner), []
    for turn in range(30):
        question = asked(model, mixed_problems[turn % 6].question)
        batch.admit(rows_of(question, turn, 0, 1, WARM))
        batch.step()
        widths.append(batch._state.mask.shape[1])
    longest = max(len(asked(model, each.question)) for each in mixed_problems)
    assert max(widths) <= longest + 6 + 1 + 6 + 2


def test_no_latents_is_an_answer_too(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("cot"))
    batch = ContinuousBatch(model.reasoner)
    row = Row(asked(model, mixed_problems[0].question), 0, Sampling.greedy(1))
    batch.admit([row])
    assert row.ended
    assert batch.rows == []
    assert (len(row.answer_ids), row.latents) == (1, [])
