from __future__ import annotations

import numpy as np
import pytest
import torch

from latentplan.evaluation.collect_latents import collect_latents
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import unroll
from latentplan.rollout.decoding_accuracy import latent_steps
from latentplan.rollout.solve import greedy_chains, question_batch, solve

GREEDY = Sampling.greedy(6)


@pytest.fixture(scope="module")
def model(make_system, as_loaded):
    system = make_system("atp_latent", latents_per_step=2)
    with torch.no_grad():
        # A random stop head says much the same everywhere; now chains have different lengths.
        system.reasoner.stop_head.layers[-1].weight.mul_(20)
        system.reasoner.stop_head.layers[-1].bias.copy_(torch.tensor([2.0, -2.0]))
    return as_loaded(system)


def test_rows_are_the_latents_and_plans_of_the_greedy_chains(model, mixed_problems):
    table = collect_latents(model, mixed_problems, sampling=GREEDY, batch_size=4)
    questions = [problem.question for problem in mixed_problems]
    solutions = [found for (found,) in solve(model, questions, GREEDY, batch_size=6)]
    assert [each.plan for each in table.problems] == [each.plan for each in solutions]
    for place, solution in enumerate(solutions):
        rows = [row for row in table.rows if row.problem == place]
        assert [row.text for row in rows] == solution.plan
        assert [row.step for row in rows] == list(range(1, len(rows) + 1))
        assert 2 * len(rows) == solution.num_latents
    chains = greedy_chains(model, questions, batch_size=6)
    first = next(index for index, row in enumerate(table.rows) if row.step == 1)
    row = chains.indices.index(table.rows[first].problem)
    assert np.allclose(table.vectors[first], chains.latents[row, :2].flatten().numpy(), atol=1e-5)
    assert np.allclose(table.means, table.vectors, atol=1e-4)


@torch.no_grad()
def test_sigma_is_the_mean_over_dimensions(model, mixed_problems):
    every = collect_latents(model, mixed_problems, sampling=GREEDY)
    problem = mixed_problems[max(every.rows, key=lambda row: row.step).problem]
    table = collect_latents(model, [problem], sampling=GREEDY)
    ids, mask = question_batch(model, [problem.question])
    used = 2 * len(table.rows)
    assert used >= 4
    slots = torch.ones(1, used, dtype=torch.long)
    chain = unroll(model.reasoner, model.reasoner.start(ids, mask), slots)
    sigma = torch.exp(0.5 * chain.log_variance[0]).unflatten(0, (-1, 2)).mean(dim=(1, 2))
    assert [row.sigma for row in table.rows] == pytest.approx(sigma.tolist(), abs=1e-4)


def test_stops_are_those_that_were_asked(model, mixed_problems):
    table = collect_latents(model, mixed_problems, sampling=GREEDY)
    for place, problem in enumerate(mixed_problems):
        asked = [stop for stop in table.stops if stop.problem == place]
        used = sum(row.problem == place for row in table.rows)
        assert len(asked) == min(used + 1, 3)
        assert all(stop.probability < 0.5 for stop in asked[:used])
        assert all(stop.probability >= 0.5 for stop in asked[used:])
        assert {stop.needed for stop in asked} == {min(len(problem.steps), 3)}


def test_sampled_latents_lie_around_their_means(model, mixed_problems):
    sampling = Sampling(temperature=1.0, latent_temperature=1.0, max_new_tokens=4)
    table = collect_latents(model, mixed_problems, sampling=sampling, seed=1)
    apart = np.abs(table.vectors - table.means).mean(axis=1)
    # E|N(0, σ²)| = 0.8 σ
    sigmas = np.array([row.sigma for row in table.rows])
    assert np.mean(apart / sigmas) == pytest.approx(0.798, abs=0.08)


def test_without_a_decoder_the_labelled_steps_name_the_rows(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("coconut"))
    table = collect_latents(model, mixed_problems, sampling=GREEDY)
    assert not table.decoded
    assert not table.stops
    config = model.reasoner.config
    for place, problem in enumerate(mixed_problems):
        labelled = latent_steps(problem.steps, config.max_latent_steps, config.step_separator)
        texts = [row.text for row in table.rows if row.problem == place]
        assert texts == [*labelled, None, None][:3]
    assert {row.sigma for row in table.rows} == {None}
    assert table.problems[0].plan is None


def test_latents_that_stand_for_tokens_have_no_texts(make_system, as_loaded, mixed_problems):
    table = collect_latents(as_loaded(make_system("colar")), mixed_problems, sampling=GREEDY)
    assert {row.text for row in table.rows} == {None}


def test_spread_is_the_deviation_of_means_between_problems(model, mixed_problems):
    table = collect_latents(model, mixed_problems, sampling=GREEDY)
    first = np.stack([mean for mean, row in zip(table.means, table.rows, strict=True) if row.step == 1])
    assert table.spread(1) == pytest.approx(first.std(axis=0).mean())
    assert table.spread(99) is None


def test_no_latents_no_problems(make_system, as_loaded, model, mixed_problems):
    with pytest.raises(ValueError, match="cot has no latents"):
        collect_latents(as_loaded(make_system("cot")), mixed_problems, sampling=GREEDY)
    with pytest.raises(ValueError, match="no problems"):
        collect_latents(model, [], sampling=GREEDY)
