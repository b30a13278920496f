"""The whole loss on written tokens, value and gradient, against TRL 1.16's formulas computed apart.

A model without latents has answer tokens as its only actions, as a model of TRL's has.
"""

import copy

import pytest
import torch

from latentplan.modeling.sampling import Sampling
from latentplan.rewards import RewardSet
from latentplan.rollout.logprobs import score
from latentplan.training.grpo_trainer import GRPOTrainer

EPSILON, BETA, LONGEST = 0.2, 0.5, 40


def even(prompts, completions, **columns):
    return [float(len(text) % 2 == 0) for text in completions]


@pytest.fixture
def make_trainer(make_system, as_loaded, grpo_config, mixed_problems, tmp_path):
    def build(method="cot", **settings):
        torch.manual_seed(0)
        sizes = {"per_device_train_batch_size": 8, "max_completion_length": LONGEST, "save_strategy": "no"}
        shared = {**sizes, "num_iterations": 2, "max_log_ratio": 50.0}  # TRL clamps no log-ratio
        config = grpo_config(tmp_path / "run", **{**shared, **settings})
        return GRPOTrainer(as_loaded(make_system(method)), config, mixed_problems, RewardSet([even]))

    return build


def rolled_out(trainer, questions=2):
    trainer.model.train()
    return [trainer._prepare_inputs({"indices": torch.arange(questions)}) for _ in range(trainer.minibatches)]


def move(trainer, shift):
    with torch.no_grad():
        for weight in trainer.model.reasoner.parameters():
            weight += shift


def trl_loss(new, old, reference, advantages, mask, *, loss_type, corrected, num_items):
    """`GRPOTrainer._compute_loss` of TRL 1.16: log-probabilities and mask `[rows, tokens]`.

    `num_items` is the count that `dapo` divides by, in proportion to one accumulation window.
    """
    advantages = advantages.unsqueeze(1)
    ratio = torch.exp(new - old)
    kl = torch.exp(reference - new) - (reference - new) - 1
    if corrected:
        kl = kl * ratio
    per_token = -torch.min(ratio * advantages, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantages)
    per_token = per_token + BETA * kl
    if loss_type == "grpo":
        return ((per_token * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
    if loss_type == "bnpo":
        return (per_token * mask).sum() / mask.sum().clamp(min=1.0)
    if loss_type == "dr_grpo":
        return (per_token * mask).sum() / (per_token.size(0) * LONGEST)
    return (per_token * mask).sum() / num_items


@pytest.mark.parametrize("corrected", [False, True], ids=["", "use_bias_correction_kl"])
@pytest.mark.parametrize("truncated", [False, True], ids=["", "mask_truncated_completions"])
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_loss_and_gradient_are_those_of_trl(loss_type, truncated, corrected, make_trainer):
    trainer = make_trainer(
        loss_type=loss_type,
        mask_truncated_completions=truncated,
        use_bias_correction_kl=corrected,
        beta=BETA,
    )
    (batch,) = rolled_out(trainer)
    trajectories = batch.trajectories
    assert 0 < trajectories.finished.sum() < 8
    start = copy.deepcopy(trainer.model.reasoner)
    move(trainer, 0.01)
    weights = [each for each in trainer.model.reasoner.parameters() if each.requires_grad]

    new, old, reference = (
        score(policy, trajectories, Sampling(max_new_tokens=LONGEST)).answers
        for policy in (trainer.model.reasoner, start, start)
    )
    mask = trajectories.answer_mask
    if truncated:
        mask = mask * trajectories.finished.unsqueeze(1).int()
    expected = trl_loss(
        new,
        old.detach(),
        reference.detach(),
        batch.advantages,
        mask,
        loss_type=loss_type,
        corrected=corrected,
        num_items=mask.sum().clamp(min=1.0),
    )
    by_trl = torch.autograd.grad(expected, weights)

    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5, rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, weights), by_trl, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
    parts, valid = trainer.loss_parts, mask.bool()
    kl = torch.exp(reference - new) - (reference - new) - 1
    weighted = kl * torch.exp(new - old) if corrected else kl
    if loss_type in ("bnpo", "dapo"):
        assert float(parts["kl"]) == pytest.approx(weighted[valid].mean().item(), rel=1e-4)
    entropy = score(trainer.model.reasoner, trajectories, Sampling(max_new_tokens=LONGEST)).entropy
    assert float(parts["entropy"]) == pytest.approx(entropy[valid].mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2},
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2},
        {"steps_per_generation": 2},
    ],
    ids=["accumulated", "two updates a rollout", "an update a minibatch"],
)
def test_dapo_divides_by_the_tokens_of_the_rollout_in_proportion_to_a_window(settings, make_trainer):
    """TRL: Σ over tokens / (tokens of the rollout · accumulation / minibatches); the Trainer divides by the
    accumulation afterwards."""
    trainer = make_trainer(loss_type="dapo", num_iterations=1, **settings)
    minibatches = trainer.minibatches
    batches = rolled_out(trainer, questions=2 * minibatches)
    counts = [int(each.trajectories.answer_mask.sum()) for each in batches]
    assert len(set(counts)) > 1
    move(trainer, 0.003)
    accumulation = trainer.args.gradient_accumulation_steps
    for batch in batches:
        trajectories = batch.trajectories
        with torch.no_grad():
            new = score(trainer.model.reasoner, trajectories, Sampling(max_new_tokens=LONGEST)).answers
            loss = trainer.compute_loss(trainer.model, batch).item() / accumulation
        expected = trl_loss(
            new,
            new if batch.old is None else batch.old.answers,
            new,
            batch.advantages,
            trajectories.answer_mask,
            loss_type="dapo",
            corrected=False,
            num_items=sum(counts) * accumulation / minibatches,
        )
        assert loss == pytest.approx(expected.item(), abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_no_term_is_of_a_truncated_answer_or_of_a_chain_without_another(gradient, answers, make_trainer):
    """What a truncated answer holds, and the latents that only such answers follow, changes neither loss nor
    gradient nor metric."""
    trainer = make_trainer(
        "atp_latent",
        latent_gradient=gradient,
        answers_per_latent=answers,
        mask_truncated_completions=True,
        beta=BETA,
        use_bias_correction_kl=True,
    )
    (batch,) = rolled_out(trainer)
    move(trainer, 0.01)
    finished = batch.trajectories.finished
    chains = finished.unflatten(0, (-1, answers)).any(dim=1)
    assert 0 < finished.sum() < 8
    scores = trainer.objective.scores(trainer.model, batch.trajectories)

    def terms(rows, chain_rows):
        """The loss, its gradient in what the model says of these rows, and the metrics."""
        leaves = {}

        def shaken(value, by):
            leaf = (value.detach() + by).requires_grad_()
            leaves[len(leaves)] = leaf
            return leaf

        noise = [torch.rand(8, 1) * rows.unsqueeze(1), torch.rand(len(chains), 1) * chain_rows.unsqueeze(1)]
        chain = copy.copy(scores.chain)
        chain.mean = shaken(chain.mean, noise[1].unsqueeze(2))
        chain.log_variance = shaken(chain.log_variance, noise[1].unsqueeze(2))
        changed = copy.copy(scores)
        changed.chain = chain
        changed.latents = shaken(scores.latents, noise[1])
        changed.stops = shaken(scores.stops, noise[1])
        changed.stop_logits = shaken(scores.stop_logits, noise[1].unsqueeze(2))
        changed.answers = shaken(scores.answers, noise[0])
        changed.entropy = scores.entropy + noise[0]
        losses = trainer.objective.losses_of(trainer.model, changed, batch)
        loss = torch.stack(list(losses.values())).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        return loss.detach(), gradients, dict(trainer.loss_parts)

    zeros = torch.zeros(8), torch.zeros(len(chains))
    loss, gradients, metrics = terms(*zeros)
    other, _, same = terms((~finished).float(), (~chains).float())
    torch.testing.assert_close(other, loss)
    assert set(metrics) >= {"entropy", "kl", "latents/sigma", "latents/spread", "log_ratio/latents"}
    for name, value in metrics.items():
        torch.testing.assert_close(same[name], value, msg=name, equal_nan=True)
    for gradient in gradients:
        if gradient is not None:
            left_out = ~finished if len(gradient) == 8 and answers > 1 else ~chains
            assert not gradient[left_out[: len(gradient)]].any()
    moved, _, _ = terms(finished.float(), chains.float())
    assert abs(moved - loss) > 1e-3
