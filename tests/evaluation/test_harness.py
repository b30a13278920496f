from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from latentplan.evaluation.harness import evaluate
from latentplan.evaluation.latent_metrics import reconstruction_warnings, stop_calibration
from latentplan.evaluation.metrics import PredictionWriter
from latentplan.evaluation.results import Reconstruction
from latentplan.modeling.sampling import Sampling
from latentplan.problems.fingerprint import question_fingerprint
from latentplan.problems.problem import Problem
from latentplan.rollout.decoding_accuracy import teacher_plans
from latentplan.rollout.interventions import of_another_question, same_norm_noise, zero
from latentplan.rollout.solve import GreedyChains, greedy_chains

SHORT = Sampling.greedy(max_new_tokens=8)
WARM = Sampling(1.0, 1.0, 8)


def comparable(result):
    return {key: value for key, value in result.to_json().items() if key not in ("seconds", "created")}


def test_model_that_knows_its_problems(taught_model, problems):
    known = problems[:4]
    result, predictions = evaluate(taught_model, known, benchmark="known", sampling=SHORT)
    needed = [min(3, len(problem.steps)) for problem in known]
    assert result.accuracy.estimate == result.finished == result.latent_use.intact == 1
    assert result.reconstruction == Reconstruction(1, 1, 1, 1)
    assert (result.stop.exact, result.stop.mean_needed) == (1, sum(needed) / 4)
    assert [prediction.num_latents for prediction in predictions] == [2 * steps for steps in needed]
    assert result.tokens.latents == 2 * sum(needed) / 4
    assert result.tokens.text == 2
    assert [prediction.index for prediction in predictions] == list(range(4))
    assert result.warnings == []


def test_taught_model_on_other_problems_warns(taught_model, problems):
    result, _ = evaluate(taught_model, problems[4:], sampling=SHORT)
    assert result.reconstruction.teacher_exact < 0.9
    assert "teacher-encoded reconstruction is" in result.warnings[0]


@pytest.mark.parametrize(
    ("method", "has_plan", "has_latents", "has_decoder", "has_stop"),
    [
        ("cot", True, False, False, False),
        ("no_cot", False, False, False, False),
        ("icot", False, False, False, False),
        ("pause", False, True, False, False),
        ("codi", False, True, False, False),
        ("colar", False, True, False, False),
        ("coconut", False, True, False, False),
        ("sim_cot", True, True, True, False),
        ("atp_latent", True, True, True, True),
    ],
)
def test_what_applies_to_a_method(tiny_model, problems, method, has_plan, has_latents, has_decoder, has_stop):
    result, _ = evaluate(tiny_model(method), problems[:5], sampling=SHORT)
    assert (result.method, result.num_problems, result.pass_at_k) == (method, 5, None)
    for score in (result.coherence, result.validity, result.grounding, result.plan_score):
        assert (score is not None) == has_plan
    assert (result.latent_use is not None) == has_latents
    assert (result.reconstruction is not None) == has_decoder
    assert (result.stop is not None) == has_stop


@pytest.mark.parametrize("sampling", [SHORT, WARM], ids=["greedy", "sampled"])
def test_batch_size_changes_nothing(taught_model, problems, sampling):
    generations = 1 if sampling is SHORT else 3
    runs = [
        evaluate(
            taught_model, problems, sampling=sampling, num_generations=generations, batch_size=size, seed=4
        )
        for size in (3, 100)
    ]
    assert comparable(runs[0][0]) == comparable(runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_several_generations(taught_model, problems):
    result, predictions = evaluate(taught_model, problems[:8], sampling=WARM, num_generations=5)
    assert len(predictions) == 40
    assert list(result.pass_at_k) == ["1", "2", "4"]
    assert result.pass_at_k["1"] == pytest.approx(result.accuracy.estimate)
    assert result.pass_at_k["1"] <= result.pass_at_k["2"] <= result.pass_at_k["4"]
    greedy, _ = evaluate(taught_model, problems[:8], sampling=SHORT)
    assert (result.reconstruction, result.latent_use, result.stop) == (
        greedy.reconstruction,
        greedy.latent_use,
        greedy.stop,
    )


def test_seed_decides_samples(taught_model, problems):
    def completions(seed):
        hot = Sampling(2.0, 2.0, 8)
        return evaluate(taught_model, problems[4:], sampling=hot, seed=seed, latent_use=False)[1]

    assert completions(1) == completions(1) != completions(2)


def test_progress_and_jsonl(tiny_model, problems, tmp_path):
    seen = []
    with PredictionWriter(tmp_path / "new" / "rows.jsonl") as writer:

        def on_progress(solved):
            seen.append(len(solved))
            writer.write(solved)

        _, predictions = evaluate(
            tiny_model("cot"), problems[:5], sampling=SHORT, batch_size=2, on_progress=on_progress
        )
    assert seen == [2, 2, 1]
    rows = [json.loads(line) for line in (tmp_path / "new" / "rows.jsonl").read_text().splitlines()]
    assert sorted(rows, key=lambda row: row["index"]) == [row.to_json() for row in predictions]


def test_training_mode_is_restored(tiny_model, problems):
    model = tiny_model("atp_latent")
    model.reasoner.train()
    evaluate(model, problems[:2], sampling=SHORT, latent_use=False)
    assert model.reasoner.training
    assert not model.step_decoder.training


def test_what_cannot_be_evaluated(tiny_model, problems):
    model = tiny_model("cot")
    with pytest.raises(ValueError, match="no problems"):
        evaluate(model, [])
    with pytest.raises(ValueError, match="2 greedy trajectories"):
        evaluate(model, problems, num_generations=2)
    with pytest.raises(ValueError, match=r"batch_size \(0\)"):
        evaluate(model, problems, batch_size=0)


def test_problems_without_chains(tiny_model):
    bare = [Problem("the dial is at 1 . where is it ?", (), "1")]
    result, _ = evaluate(tiny_model("atp_latent"), bare, sampling=SHORT)
    assert result.reconstruction == Reconstruction(None, None, None, None)
    assert result.stop is None
    assert result.latent_use.other_question is None
    assert list(result.by_steps) == ["0"]


def test_teacher_uses_the_labelled_steps(tiny_model, problems):
    model = tiny_model("sim_cot")
    plans = teacher_plans(model, problems, batch_size=5)
    assert [len(plan) for plan in plans] == [min(3, len(problem.steps)) for problem in problems]
    assert plans == teacher_plans(model, problems, batch_size=100)


def test_chains_are_those_of_each_question(taught_model, problems):
    questions = [problem.question for problem in problems]
    chains = greedy_chains(taught_model, questions, batch_size=4)
    assert sorted(chains.indices) == list(range(len(problems)))
    assert [len(questions[place]) for place in chains.indices] == sorted(map(len, questions))
    alone = greedy_chains(taught_model, [questions[chains.indices[3]]], batch_size=1)
    used = alone.slot_mask[0].bool()
    torch.testing.assert_close(chains.latents[3][used], alone.latents[0][used])
    assert chains.plans[3] == alone.plans[0]


def hand_made_chains():
    latents = torch.arange(1.0, 13).reshape(3, 2, 2)
    mask = torch.tensor([[1, 0], [1, 1], [1, 1]])
    return GreedyChains([2, 0, 1], latents, mask, [["a"], ["a", "b"], ["a", "b"]])


def test_interventions():
    chains = hand_made_chains()
    latents, mask = zero(chains, slice(0, 2), 0)
    assert not latents.any()
    assert torch.equal(mask, chains.slot_mask[:2])
    latents, mask = of_another_question(chains, slice(0, 2), 0)
    assert torch.equal(latents, chains.latents[[2, 0]])
    assert torch.equal(mask, chains.slot_mask[[2, 0]])
    latents, _ = same_norm_noise(chains, slice(0, 3), 7)
    torch.testing.assert_close(latents.norm(dim=-1), chains.latents.norm(dim=-1))
    part, _ = same_norm_noise(chains, slice(1, 2), 7)
    assert torch.equal(part, latents[1:2])
    assert not torch.equal(same_norm_noise(chains, slice(0, 3), 8)[0], latents)


def test_stop_calibration(tiny_model):
    model = tiny_model("atp_latent")
    model.reasoner.config.latents_per_step = 1
    steps = ((), ("a", "b"), ("a",))
    problems = [Problem(str(index), chain, "1") for index, chain in enumerate(steps)]
    # Place 2 uses one step of one; place 0 has no label; place 1 uses two of two.
    result = stop_calibration(model, problems, hand_made_chains())
    assert (result.exact, result.mean_predicted, result.mean_needed) == (1, 1.5, 1.5)
    longer = [*problems[:2], replace(problems[2], steps=("a",) * 9)]
    result = stop_calibration(model, longer, hand_made_chains())
    assert (result.exact, result.mean_predicted, result.mean_needed) == (0.5, 1.5, 2.5)


def test_warnings():
    assert reconstruction_warnings(None) == []
    assert reconstruction_warnings(Reconstruction(0.9, 0.1, None, None)) == []
    (warning,) = reconstruction_warnings(Reconstruction(0.95, 1, 0.8999, 1))
    assert warning.startswith("free-running reconstruction is 90.0%, below 90%")


def test_fingerprint_of_data(problems):
    assert question_fingerprint(problems) == question_fingerprint(list(problems))
    assert question_fingerprint(problems) != question_fingerprint(problems[::-1])
    assert len(question_fingerprint(problems)) == 16
