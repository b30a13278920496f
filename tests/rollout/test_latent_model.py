"""The front door: what a notebook asks of a model, against the functions below it."""

import subprocess
import sys

import pytest
import torch

import latentplan
from latentplan.modeling.efficiency import batch_compaction as active_rows
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.logprobs import score
from latentplan.rollout.solve import solve
from latentplan.rollout.trace import trace


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_system, clock_tokenizer):
    path = tmp_path_factory.mktemp("model")
    make_system("atp_latent").save_pretrained(path, clock_tokenizer)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return latentplan.load(folder)


def test_a_question_is_answered_as_solve_does(model, mixed_problems):
    for problem in mixed_problems:
        ((expected,),) = solve(model.loaded, [problem.question], Sampling.greedy(12))
        answer = model.ask(problem.question, max_new_tokens=12)
        assert (answer.completion, answer.plan) == (expected.completion, expected.plan)
        assert (answer.num_latents, answer.num_tokens) == (expected.num_latents, expected.num_tokens)
        assert answer.answer in str(answer)
    assert "<ol>" in answer._repr_html_()


def test_samples_are_those_of_solve_and_one_string_is_one_question(model, mixed_problems):
    questions = [problem.question for problem in mixed_problems[:3]]
    rolled = model.rollout(questions, n=4, seed=5, max_new_tokens=6)
    expected = solve(model.loaded, questions, Sampling(max_new_tokens=6), seed=5, num_generations=4)
    assert [[each.completion for each in group] for group in rolled.answers] == [
        [each.completion for each in group] for group in expected
    ]
    one = model.rollout(questions[0], n=4, max_new_tokens=6)
    assert len(one.answers) == 1
    assert one.trajectories.latents.shape[0] == 4
    with pytest.raises(ValueError, match="2 batches"):
        _ = model.rollout(questions[:2], n=2, batch_size=2, max_new_tokens=2).trajectories


def test_a_trace_shows_what_the_answer_follows_from(model, mixed_problems):
    for problem in mixed_problems[:3]:
        traced, answer = (
            model.trace(problem.question, max_new_tokens=8),
            model.ask(problem.question, max_new_tokens=8),
        )
        assert traced.answer == answer
        assert [step.decoded.text for step in traced.steps] == answer.plan
        assert all(0 <= step.stop <= 1 and 0 <= step.decoded.probability <= 1 for step in traced.steps)
        assert all(step.sigma.shape == (2,) and not step.given for step in traced.steps)
        assert len(str(traced).splitlines()) == len(traced.steps) + 2
        assert "<pre>" in traced._repr_html_()


def longest(model, problems):
    traces = [model.trace(problem.question, max_new_tokens=4) for problem in problems]
    return max(traces, key=lambda each: len(each.steps))


def test_an_edit_keeps_the_steps_before_it_and_thinks_on(model, mixed_problems):
    traced = longest(model, mixed_problems)
    assert len(traced.steps) >= 2
    resumed = model.edit(traced, step=2, value=traced.steps[0]).resume(max_new_tokens=4)
    for step, expected in ((0, traced.steps[0]), (1, traced.steps[0])):
        torch.testing.assert_close(resumed.steps[step].latents, expected.latents)
        assert resumed.steps[step].given
    same = model.edit(traced, step=1, value=traced.steps[0].latents).resume(max_new_tokens=4)
    assert same.answer.completion == traced.answer.completion
    zeroed = model.edit(traced, step=1, value=0.0).resume(max_new_tokens=4)
    assert not zeroed.steps[0].latents.any()
    for step, value, message in (
        (0, 0.0, "step must be from 1 to"),
        (1, torch.zeros(3), "must have the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            model.edit(traced, step, value)


def test_log_probabilities_are_those_of_the_score(model, mixed_problems):
    traced = longest(model, mixed_problems)
    found = model.log_prob(traced.question, traced, "7")
    assert found.latents.shape == (2 * len(traced.steps),)
    # At the means a Gaussian has its highest density.
    moved = torch.stack([step.latents for step in traced.steps]) + 0.1
    assert float(model.log_prob(traced.question, moved, "7").latents.sum()) < float(found.latents.sum())
    assert found.total == pytest.approx(float(found.latents.sum() + found.answer.sum()))
    # Over what the model itself wrote it is what the rollout recorded.
    rolled = model.rollout(traced.question, n=3, max_new_tokens=4, seed=2).trajectories
    recorded = score(model.loaded.reasoner, rolled, Sampling())
    torch.testing.assert_close(recorded.answers, rolled.answer_log_probs, atol=1e-3, rtol=1e-3)


def test_a_model_without_latents_has_the_same_interface(
    make_system, clock_tokenizer, mixed_problems, tmp_path
):
    make_system("cot").save_pretrained(tmp_path, clock_tokenizer)
    model, question = latentplan.load(tmp_path), mixed_problems[0].question
    assert model.trace(question, max_new_tokens=5).steps == []
    assert model.log_prob(question, None, "7").latents.shape == (0,)
    assert model.ask(question, max_new_tokens=5).num_latents == 0
    assert "cot" in repr(model)


def test_public_names_exist_and_importing_them_takes_no_torch():
    for name in latentplan.__all__:
        assert getattr(latentplan, name) is not None
        assert name in dir(latentplan)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = latentplan.lod
    code = "import sys, latentplan; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_trace_ends_with_its_answer_on_devices_that_look_rarely(
    make_system, as_loaded, mixed_problems, monkeypatch
):
    model = as_loaded(make_system("cot"))

    def tokens():
        return [
            [each.id for each in trace(model, problem.question, max_new_tokens=40)]
            for problem in mixed_problems
        ]

    end = tokens()[0][2]
    monkeypatch.setattr(model.reasoner.config, "eos_token_id", end)
    often = tokens()
    assert often[0][-1] == end
    assert len(often[0]) <= 3
    monkeypatch.setattr(active_rows, "CHECK_EVERY", {"cpu": 4})
    assert tokens() == often
