"""GRPO and the likelihood of the right answer in one pass: each part is what it is alone."""

import json
from dataclasses import replace

import pytest
import torch

from latentplan.rewards import RewardSet
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.rollout_batch import KnownAnswers, apart, beside_samples, split
from latentplan.training.validation import ValidationSet

PATHWISE = {"latent_gradient": "pathwise", "answers_per_latent": 2}


@pytest.fixture
def trainer(make_system, as_loaded, grpo_config, mixed_problems, tmp_path):
    def build(method="atp_latent", problems=mixed_problems[:4], **settings):
        torch.manual_seed(0)
        config = grpo_config(tmp_path / "run", **{"max_completion_length": 2, **settings})
        rewards = RewardSet(["format", "accuracy"])
        return GRPOTrainer(as_loaded(make_system(method)), config, problems, rewards)

    return build


def minibatch_of(trainer, problems):
    sampled = trainer.objective.sample(trainer.loaded, problems, range(len(problems)), seed=5)
    advantages = torch.linspace(-1, 1, len(sampled.trajectories.answer_ids))
    (batch,) = split(sampled, advantages, 1)
    return batch


def test_the_right_answer_stands_last_among_the_answers_of_each_chain(trainer, mixed_problems):
    plain = trainer(**PATHWISE)
    sampled = plain.objective.sample(plain.loaded, mixed_problems[:2], range(2), seed=1).trajectories
    known = KnownAnswers.of([[5, 6, 7, 8, 9], [4]], 0)
    joined = beside_samples(sampled, known)
    assert (joined.draws, joined.answers) == (2, 3)
    ids = joined.answer_ids.unflatten(0, (2, 2, 3))
    width = sampled.answer_ids.shape[1]
    torch.testing.assert_close(ids[:, :, :2, :width].flatten(0, 2), sampled.answer_ids)
    assert ids[0, :, 2].tolist() == [[5, 6, 7, 8, 9]] * 2
    assert ids[1, :, 2].tolist() == [[4, 0, 0, 0, 0]] * 2
    assert joined.answer_mask.unflatten(0, (2, 2, 3))[1, 0, 2].tolist() == [1, 0, 0, 0, 0]
    assert joined.answer_mask.unflatten(0, (2, 2, 3))[:, :, :2, width:].sum() == 0


def test_each_objective_and_its_gradient_are_what_they_are_alone(trainer, mixed_problems):
    problems = mixed_problems[:4]
    settings = {**PATHWISE, "beta": 0.1}
    hybrid, plain = trainer(likelihood_weight=0.5, **settings), trainer(**settings)
    batch = minibatch_of(hybrid, problems)
    losses = hybrid.losses(hybrid.model, batch)
    alone = plain.losses(plain.model, replace(batch, known=None))
    assert losses.keys() - {"likelihood"} == alone.keys() == {"latents", "answers", "kl"}
    for name, loss in alone.items():
        torch.testing.assert_close(losses[name], loss)

    likely = trainer(objective="reference_likelihood", num_generations=2)
    chains = minibatch_of(likely, problems)
    torch.testing.assert_close(chains.trajectories.latents, batch.trajectories.latents)
    scores = likely.objective.scores(likely.model, chains.trajectories)
    expected = -0.5 * (scores.answers * chains.trajectories.answer_mask).sum(dim=1).mean()
    torch.testing.assert_close(losses["likelihood"], expected)

    parameters = [each for each in hybrid.model.reasoner.parameters() if each.requires_grad]
    losses["likelihood"].backward()
    found = [each.grad for each in parameters]
    expected.backward()
    others = [each.grad for each in likely.model.reasoner.parameters() if each.requires_grad]
    moved = 0
    for one, other in zip(found, others, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
            moved += bool(one.abs().sum() > 0)
    assert moved > 10
    assert any(each.grad.abs().sum() > 0 for each in hybrid.model.reasoner.latent_head.parameters())


def test_unused_columns_change_nothing(trainer, mixed_problems):
    """Processes of a sharded run are given columns up to the widest of them."""
    hybrid = trainer(likelihood_weight=0.5, **PATHWISE)
    batch = minibatch_of(hybrid, mixed_problems[:4])
    slots = batch.trajectories.slot_mask.shape[1]
    wide = replace(batch, trajectories=batch.trajectories.padded(slots, 6), known=batch.known.padded(7))
    assert wide.scored.answer_ids.shape[1] == 7
    losses = hybrid.losses(hybrid.model, batch)
    for name, loss in hybrid.losses(hybrid.model, wide).items():
        torch.testing.assert_close(loss, losses[name])


def test_known_answers_of_some_questions_are_as_wide_as_they_need():
    known = KnownAnswers.of([[5, 6, 7, 8], [4], [3, 2]], 0)
    assert known.select(slice(1, 3)).ids.tolist() == [[4, 0], [3, 2]]
    assert known.select(slice(1, 3)).mask.tolist() == [[1, 0], [1, 1]]


def test_scores_come_apart_as_they_were_put_together(trainer, mixed_problems):
    hybrid = trainer(likelihood_weight=1.0, **PATHWISE)
    batch = minibatch_of(hybrid, mixed_problems[:2])
    whole = hybrid.objective.scores(hybrid.model, batch.scored)
    scores, likelihoods = apart(whole, batch.trajectories)
    alone = hybrid.objective.scores(hybrid.model, batch.trajectories)
    torch.testing.assert_close(scores.answers, alone.answers)
    torch.testing.assert_close(scores.entropy, alone.entropy)
    assert likelihoods.shape == (4,)
    assert (likelihoods < 0).all()


def test_training_raises_rewards_and_the_likelihood(run_grpo, trained, tmp_path):
    run = run_grpo(
        tmp_path / "run",
        trained("atp_latent"),
        likelihood_weight=1.0,
        reward_funcs=["accuracy", "format"],
        max_steps=30,
        save_steps=30,
        learning_rate=3e-3,
        **PATHWISE,
    )
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for name in ("answers/log_likelihood", "reward"):
        values = [row[name] for row in rows if name in row]
        assert sum(values[-5:]) > sum(values[:5]), name


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "atp_latent",
            {"latent_gradient": "score_function"},
            "it needs a number above 0, and latent_gradient pathwise",
        ),
        (
            "atp_latent",
            {"likelihood_weight": -1.0},
            "it needs a number above 0, and latent_gradient pathwise",
        ),
        ("cot", {}, "likelihood_weight moves latents, and cot has none"),
    ],
)
def test_it_needs_latents_and_the_pathwise_gradient(method, settings, message, trainer):
    with pytest.raises(ValueError, match=message):
        trainer(method=method, **{"likelihood_weight": 1.0, **PATHWISE, **settings})


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_problem_without_an_answer_is_named(
    where, make_system, as_loaded, grpo_config, mixed_problems, tmp_path
):
    problems = {"training": list(mixed_problems[:2]), "validation": list(mixed_problems[2:4])}
    problems[where][0] = replace(problems[where][0], answer="", question="How many?")
    with pytest.raises(ValueError, match=r"likelihood_weight needs answers, .* none to 'How many\?'"):
        GRPOTrainer(
            as_loaded(make_system("atp_latent")),
            grpo_config(tmp_path / "run", likelihood_weight=1.0, **PATHWISE),
            problems["training"],
            RewardSet(["format"]),
            validation=ValidationSet(problems["validation"], []),
        )
