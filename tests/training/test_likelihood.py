"""The likelihood of the right answer as the objective: by hand, and that training raises it."""

import json
import math
from dataclasses import replace

import pytest
import torch

from latentplan.modeling.thinking import LatentChain
from latentplan.rewards import RewardSet
from latentplan.rollout.logprobs import Scores
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.objectives.reference_likelihood import VALUES, expected_value
from latentplan.training.rollout_batch import KnownAnswers, instead_of_samples
from latentplan.training.validation import ValidationSet


@pytest.fixture
def four_chains():
    """Two questions with two chains each; a slot, a stop decision, one answer token."""
    zeros = torch.zeros(4, 1)
    return Trajectories(
        question_ids=torch.zeros(2, 1).long(),
        question_mask=torch.ones(2, 1).long(),
        chain_keys=torch.arange(4),
        latents=torch.zeros(4, 1, 3),
        slot_mask=torch.ones(4, 1).long(),
        stop_mask=torch.ones(4, 1).long(),
        stops=torch.zeros(4, 1).long(),
        latent_log_probs=zeros,
        stop_log_probs=zeros - 0.5,
        answer_ids=torch.ones(4, 1).long(),
        answer_mask=torch.ones(4, 1).long(),
        answer_log_probs=zeros,
        finished=torch.zeros(4).bool(),
    )


def with_answers(trajectories, answers):
    return instead_of_samples(trajectories, KnownAnswers.of(answers, 0))


def scores_of(answers, stops, chain):
    return Scores(chain, torch.zeros(4, 1), stops, answers, None, torch.zeros_like(answers))


def test_each_chain_gets_the_answer_of_its_question(four_chains):
    answered = with_answers(four_chains, [[5, 6, 7], [8, 9]])
    assert answered.answer_ids.tolist() == [[5, 6, 7], [5, 6, 7], [8, 9, 0], [8, 9, 0]]
    assert answered.answer_mask.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert answered.finished.all()
    assert answered.answers == 1


def test_values_and_stops_by_hand(four_chains):
    trajectories = with_answers(four_chains, [[5, 6], [8]])
    answers = torch.log(torch.tensor([[0.5, 0.5], [0.5, 1.0], [0.2, 0.3], [0.4, 0.3]])).requires_grad_()
    stops = torch.full((4, 1), -0.5).requires_grad_()
    chain = LatentChain(trajectories.latents, trajectories.latents, None, trajectories.slot_mask)
    given = scores_of(answers, stops, chain), trajectories.stop_log_probs, trajectories
    loss, values = expected_value(*given, VALUES["likelihood"])
    # What stands after the end of the second question's answer does not count.
    torch.testing.assert_close(values, torch.tensor([0.25, 0.5, 0.2, 0.4]))
    loss.backward()
    # d(−mean p)/d log p = −p/4; what others made likelier is what a stop is compared with.
    expected = torch.tensor([[0.25, 0.25], [0.5, 0.5], [0.2, 0], [0.4, 0]]) / -4
    torch.testing.assert_close(answers.grad, expected)
    torch.testing.assert_close(stops.grad, torch.tensor([[0.25], [-0.25], [0.2], [-0.2]]) / 4)
    assert loss.item() == pytest.approx(-(0.25 + 0.5 + 0.2 + 0.4) / 4)
    _, values = expected_value(*given, VALUES["log_likelihood"])
    assert values[0] == pytest.approx(math.log(0.25))


def test_training_raises_the_likelihood(run_grpo, trained, tmp_path):
    for value in VALUES:
        settings = {"objective": "reference_likelihood", "maximize": value, "max_steps": 30, "save_steps": 30}
        run = run_grpo(tmp_path / value, trained("atp_latent"), **settings)
        rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        rewards = [row["reward"] for row in rows if "reward" in row]
        assert sum(rewards[-5:]) > sum(rewards[:5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"answers_per_latent": 2}, "samples no answers"), ({"beta": 0.1}, "samples no answers")],
)
def test_settings_of_sampled_answers_are_refused(settings, message, run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_grpo(
            tmp_path / "run",
            trained("atp_latent"),
            objective="reference_likelihood",
            maximize="likelihood",
            **settings,
        )


def test_a_model_without_latents_is_refused(run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match="cot has none"):
        run_grpo(tmp_path / "run", trained("cot"), objective="reference_likelihood", maximize="likelihood")


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_problem_without_an_answer_is_named(
    where, make_system, as_loaded, grpo_config, mixed_problems, tmp_path
):
    problems = {"training": mixed_problems[:2], "validation": mixed_problems[2:4]}
    problems[where] = [replace(problems[where][0], answer="", question="How many?"), problems[where][1]]
    config = grpo_config(tmp_path / "run", objective="reference_likelihood", maximize="likelihood")
    with pytest.raises(
        ValueError, match=r"objective reference_likelihood needs answers, .* none to 'How many\?'"
    ):
        GRPOTrainer(
            as_loaded(make_system("atp_latent")),
            config,
            problems["training"],
            RewardSet(["format"]),
            validation=ValidationSet(problems["validation"], []),
        )
