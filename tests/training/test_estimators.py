"""Which actions a chain of latents has, by hand, and through what their gradients flow."""

from dataclasses import replace

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import LatentChain
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import Scores
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.latent_gradients import LATENT_GRADIENTS, Actions, LogProbs, whole_trajectories


@pytest.fixture
def three_chains():
    """Two latents a step, at most 2 steps: one chain used all, one stopped after a step, one at once."""
    chains, answers = 3, 1
    zeros = torch.zeros(chains, 1)
    return Trajectories(
        question_ids=torch.zeros(chains, 1).long(),
        question_mask=torch.ones(chains, 1).long(),
        chain_keys=torch.arange(chains),
        latents=torch.zeros(chains, 4, 5),
        slot_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]),
        stop_mask=torch.tensor([[1, 1], [1, 1], [1, 0]]),
        stops=torch.tensor([[0, 0], [0, 1], [1, 0]]),
        latent_log_probs=torch.tensor([[-1.0, -2, -3, -4], [-5, -6, 0, 0], [0, 0, 0, 0]]),
        stop_log_probs=torch.tensor([[-0.1, -0.2], [-0.3, -0.4], [-0.5, 0]]),
        answer_ids=torch.ones(chains * answers, 1).long(),
        answer_mask=torch.ones(chains * answers, 1).long(),
        answer_log_probs=zeros - 0.7,
        finished=torch.ones(chains).bool(),
    )


def chain_actions(gradient, chains):
    return LATENT_GRADIENTS[gradient].chain_actions(chains.latent_log_probs, chains.stop_log_probs, chains)


def test_slots_and_the_final_stop_are_the_actions(three_chains):
    log_probs, mask = chain_actions("score_function", three_chains)
    # The first slot of a step bears the decision to go on; the last column is the stop, where there was one.
    expected = [[-1.1, -2, -3.2, -4, 0], [-5.3, -6, 0, 0, -0.4], [0, 0, 0, 0, -0.5]]
    torch.testing.assert_close(log_probs, torch.tensor(expected))
    assert mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 0, 0, 1], [0, 0, 0, 0, 1]]


def test_the_joint_log_probability_is_that_of_all_draws(three_chains):
    log_probs, mask = chain_actions("score_function", three_chains)
    drawn = three_chains.latent_log_probs.sum(1) + three_chains.stop_log_probs.sum(1)
    torch.testing.assert_close((log_probs * mask).sum(1), drawn)


def test_only_stops_are_actions_of_pathwise_chains(three_chains):
    log_probs, mask = chain_actions("pathwise", three_chains)
    assert torch.equal(log_probs, three_chains.stop_log_probs)
    assert torch.equal(mask, three_chains.stop_mask)


def test_without_latents_only_answers_are_actions(three_chains):
    bare = replace(
        three_chains,
        latents=torch.zeros(3, 0, 5),
        slot_mask=torch.zeros(3, 0).long(),
        latent_log_probs=torch.zeros(3, 0),
        stop_log_probs=torch.zeros(3, 0),
        stops=torch.zeros(3, 0).long(),
        stop_mask=torch.zeros(3, 0).long(),
    )
    scores = make_scores(bare, bare.latent_log_probs, bare.stop_log_probs)
    for estimator in LATENT_GRADIENTS.values():
        old = LogProbs.of_rollout(bare, None)
        assert [action.name for action in estimator.actions(log_probs(scores), old, bare, 1.0)] == ["answers"]


def log_probs(scores):
    return LogProbs(scores.latents, scores.stops, scores.answers)


def make_scores(trajectories, latents, stops):
    chain = LatentChain(trajectories.latents, trajectories.latents, None, trajectories.slot_mask)
    return Scores(chain, latents, stops, trajectories.answer_log_probs + 0.1, None, torch.zeros(3, 1))


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_new_and_old_actions_side_by_side(scale, three_chains):
    """`latent_scale` (1 / dimensions for `latent_logprob: mean`) multiplies latents, but not stops."""
    scores = make_scores(three_chains, three_chains.latent_log_probs - 1, three_chains.stop_log_probs - 0.01)
    pair = log_probs(scores), LogProbs.of_rollout(three_chains, None)
    latents, answers = LATENT_GRADIENTS["score_function"].actions(*pair, three_chains, scale)
    assert (latents.name, answers.name) == ("latents", "answers")
    difference = (latents.log_probs - latents.old_log_probs) * latents.mask
    boundary = torch.tensor([[1, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 1]])
    used = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(difference, -scale * used - 0.01 * boundary)
    torch.testing.assert_close(answers.log_probs - answers.old_log_probs, torch.full((3, 1), 0.1))
    stops, _ = LATENT_GRADIENTS["pathwise"].actions(*pair, three_chains, scale)
    torch.testing.assert_close(stops.log_probs - stops.old_log_probs, torch.full((3, 2), -0.01))


def test_a_whole_trajectory_is_the_sum_of_its_valid_actions():
    """Two chains with two answers each; the last answer is left out, and a token and a slot are padding."""
    chains = Actions(
        "latents", torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[0.5, 1.0], [1.0, 0.0]]), None
    )
    tokens = torch.tensor([[1.0, 0.0], [2.0, 9.0], [3.0, 1.0], [4.0, 1.0]])
    answers = Actions("answers", tokens, torch.zeros(4, 2), None)
    masks = {
        "latents": torch.tensor([[1, 1], [1, 0]]),
        "answers": torch.tensor([[1, 1], [1, 0], [1, 1], [0, 0]]),
        "trajectories": torch.tensor([[1], [1], [1], [0]]),
    }
    joined, counts = whole_trajectories([chains, answers], masks)
    log_ratio = joined.log_probs - joined.old_log_probs
    assert log_ratio.tolist() == [[0.5 + 1 + 1 + 0], [0.5 + 1 + 2], [2.0 + 3 + 1], [2.0]]
    assert counts.tolist() == [[4], [3], [3], [1]]
    assert joined.name == "trajectories"
    assert joined.mask is masks["trajectories"]


@pytest.fixture(scope="module")
def rolled_out(make_system, make_batch, mixed_problems):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems)
    sampling = Sampling(max_new_tokens=4)
    trajectories = generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(6),
        seed=0,
        sampling=sampling,
        draws=4,
        answers=2,
    )
    return system, trajectories, sampling


@pytest.mark.parametrize("name", LATENT_GRADIENTS)
def test_the_sampling_policy_has_ratio_1(name, rolled_out):
    system, trajectories, sampling = rolled_out
    estimator = LATENT_GRADIENTS[name]
    scores = estimator.scores(system.reasoner, trajectories, sampling)
    old = LogProbs.of_rollout(trajectories, None)
    for actions in estimator.actions(log_probs(scores), old, trajectories, 1.0):
        torch.testing.assert_close(actions.log_probs, actions.old_log_probs, atol=1e-3, rtol=1e-5)
        assert actions.mask.any()


def gradients(name, rolled_out, kind):
    """Gradient of the summed log-probability of a kind of action for each part of the policy."""
    system, trajectories, sampling = rolled_out
    estimator = LATENT_GRADIENTS[name]
    scores = estimator.scores(system.reasoner, trajectories, sampling)
    new = log_probs(scores)
    found = estimator.actions(new, new.detach(), trajectories, 1.0)
    (actions,) = [each for each in found if each.name == kind]
    system.zero_grad()
    (actions.log_probs * actions.mask).sum().backward()
    parts = {"mean": "latent_head.mean", "stop": "stop_head", "decoder": "step_decoder"}
    named = {
        part: [p.grad for n, p in system.named_parameters() if prefix in n and p.grad is not None]
        for part, prefix in parts.items()
    }
    return {part: sum(float(grad.abs().sum()) for grad in grads) for part, grads in named.items()}


def test_what_each_kind_of_action_teaches(rolled_out):
    """The published estimator teaches the head by the latents' density, ours by the answers through them."""
    latents = gradients("score_function", rolled_out, "latents")
    assert latents["mean"] > 0
    assert latents["stop"] > 0
    answers = gradients("score_function", rolled_out, "answers")
    assert answers["mean"] == answers["stop"] == 0
    answers = gradients("pathwise", rolled_out, "answers")
    assert answers["mean"] > 0
    assert answers["stop"] == 0
    stops = gradients("pathwise", rolled_out, "latents")
    assert stops["stop"] > 0
    for part in (latents, answers, stops):
        assert part["decoder"] == 0
