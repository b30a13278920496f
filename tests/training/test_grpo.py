"""The RL stage: its batches, its loss by hand, and that it raises rewards that can be raised."""

import copy
import json
import math

import pytest
import torch

from latentplan.modeling.loading import load_model
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet
from latentplan.rollout.engine import chain_noise
from latentplan.rollout.logprobs import replay, score
from latentplan.training.configs import ModelArguments
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.run_training import train_grpo
from latentplan.training.samplers import QuestionSampler, check_batches, shuffled


def metrics_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


# Batches.


def test_the_questions_of_a_rollout_come_again_for_each_of_its_minibatches():
    sampler = QuestionSampler(num_problems=5, per_rollout=2, repeats=3, rollouts=4, seed=1)
    order = list(sampler)
    assert len(order) == len(sampler) == 24
    rollouts = [order[start : start + 6] for start in range(0, 24, 6)]
    for rollout in rollouts:
        assert rollout == rollout[:2] * 3
    seen = [index for rollout in rollouts for index in rollout[:2]]
    assert [place % 5 for place in seen] == (shuffled(5, 1, 0) + shuffled(5, 1, 1))[:8]
    assert len(set(seen)) == 8, "a question that comes again is another place"


def test_a_rollout_may_be_larger_than_the_data():
    order = list(QuestionSampler(num_problems=2, per_rollout=5, repeats=1, rollouts=1, seed=0))
    assert [sorted(order[:2]), sorted(order[2:4])] == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="no problem to train on"):
        QuestionSampler(0, 1, 1, 1, 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"per_device_train_batch_size": 16}, (1, 4)),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}, (3, 3)),
        ({"per_device_train_batch_size": 8, "steps_per_generation": 2}, (2, 4)),
        ({"per_device_train_batch_size": 8, "num_iterations": 2}, (1, 2)),
    ],
)
def test_minibatches_and_questions_of_a_rollout(settings, expected, grpo_config, tmp_path):
    assert check_batches(grpo_config(tmp_path, **settings)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answers_per_latent": 3}, r"num_generations=4 must be a multiple of answers_per_latent=3"),
        ({"per_device_train_batch_size": 6}, r"must be a multiple of num_generations=4"),
        (
            {"steps_per_generation": 3, "gradient_accumulation_steps": 2},
            r"must be a multiple of gradient_accumulation_steps=2",
        ),
        ({"steps_per_generation": 4, "save_steps": 6}, r"save_steps=6(\.0)? must be a multiple of the 4"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(settings, message, grpo_config, tmp_path):
    with pytest.raises(ValueError, match=message):
        check_batches(grpo_config(tmp_path, **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_gradient": "guess"}, r"latent_gradient must be one of \['none', 'pathwise', .*got 'guess'"),
        ({"objective": "guess"}, r"objective must be one of \['grpo', 'gspo', .*got 'guess'"),
        ({"loss_type": "l2"}, "loss_type must be one of"),
        ({"scale_rewards": "all"}, "scale_rewards must be one of"),
        ({"latent_logprob": "max"}, "latent_logprob must be one of"),
        ({"reward_funcs": ["praise"]}, "no reward 'praise'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, message, run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_grpo(tmp_path / "run", trained("atp_latent"), **settings)


# The loss.


@pytest.fixture
def make_trainer(make_system, as_loaded, grpo_config, mixed_problems, tmp_path):
    """A trainer on two questions, whose reward is 1 for answers that hold an even number of characters."""

    def even(prompts, completions, **columns):
        return [float(len(text) % 2 == 0) for text in completions]

    def build(method="atp_latent", reward=even, family="llama", backbone=None, **settings):
        system = make_system(method, family=family, backbone=backbone)
        config = grpo_config(tmp_path / "run", per_device_train_batch_size=8, save_strategy="no", **settings)
        return GRPOTrainer(as_loaded(system), config, mixed_problems[:2], RewardSet([reward]))

    return build


def next_minibatch(trainer, indices=(0, 1)):
    """What one training step computes its loss on."""
    trainer.model.train()
    return trainer._prepare_inputs(trainer.data_collator(list(indices)))


def move(trainer, shift):
    with torch.no_grad():
        for weight in trainer.model.reasoner.parameters():
            weight += shift


def advantages_by_hand(trainer, trajectories):
    """Rewards of each question's 4 answers, centred, over their deviation."""
    texts = trainer.loaded.tokenizer.batch_decode(trajectories.answer_ids, skip_special_tokens=True)
    rewards = [float(len(text.strip()) % 2 == 0) for text in texts]
    advantages = []
    for group in (rewards[:4], rewards[4:]):
        mean = sum(group) / 4
        deviation = math.sqrt(sum((reward - mean) ** 2 for reward in group) / 3)
        advantages += [(reward - mean) / (deviation + 1e-4) for reward in group]
    return advantages


def surrogate(log_ratio, advantage, low=0.8, high=1.2):
    ratio = math.exp(max(-3.0, min(3.0, log_ratio)))
    return -min(ratio * advantage, min(max(ratio, low), high) * advantage)


def chain_losses(new, before, old, chain, advantage, latent_scale, **clip):
    """The published estimator's actions of one chain: its slots, and its stop where it stopped."""
    losses = []
    for slot in range(int(old.slot_mask[chain].sum())):
        log_ratio = latent_scale * float(new.latents[chain, slot] - before.latents[chain, slot])
        if slot % 2 == 0:  # the decision to go on
            log_ratio += float(new.stops[chain, slot // 2] - before.stops[chain, slot // 2])
        losses.append(surrogate(log_ratio, advantage, **clip))
    for step in range(old.stops.shape[1]):
        if int(old.stops[chain, step]):
            log_ratio = float(new.stops[chain, step] - before.stops[chain, step])
            losses.append(surrogate(log_ratio, advantage, **clip))
    return losses


def stop_losses(new, before, old, chain, advantage, latent_scale, **clip):
    """The pathwise estimator's actions of one chain: every decision of the stop head."""
    asked = [step for step in range(old.stops.shape[1]) if int(old.stop_mask[chain, step])]
    log_ratios = [float(new.stops[chain, step] - before.stops[chain, step]) for step in asked]
    return [surrogate(value, advantage, **clip) for value in log_ratios]


def answer_losses(new, before, old, answer, advantage, **clip):
    length = int(old.answer_mask[answer].sum())
    log_ratios = (new.answers[answer] - before.answers[answer]).tolist()[:length]
    return [surrogate(value, advantage, **clip) for value in log_ratios]


def average(rows, loss_type):
    """Lists of actions' losses, one list a row: the mean of the rows' means, or that of all actions."""
    if loss_type == "grpo":
        return sum(sum(row) / max(1, len(row)) for row in rows) / len(rows)
    return sum(map(sum, rows)) / sum(map(len, rows))


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"answers_per_latent": 2},
        {"latent_gradient": "pathwise"},
        {"latent_gradient": "pathwise", "answers_per_latent": 2},
        {"latent_logprob": "mean"},
        {"epsilon": 0.01, "epsilon_high": 0.5},
        {"temperature": 0.7, "latent_temperature": 0.5},
        {"mask_truncated_completions": True, "max_completion_length": 40},
        {"mask_truncated_completions": True, "max_completion_length": 40, "answers_per_latent": 2},
    ],
    ids=lambda settings: ", ".join(f"{name} {value}" for name, value in settings.items()) or "defaults",
)
def test_the_loss_of_two_questions_by_hand(settings, loss_type, make_trainer):
    trainer = make_trainer(loss_type=loss_type, num_iterations=2, **settings)
    batch = next_minibatch(trainer)
    old, before = batch.trajectories, batch.old
    advantages = advantages_by_hand(trainer, old)
    assert batch.advantages.tolist() == pytest.approx(advantages, abs=1e-5)
    assert len(set(advantages)) > 1
    move(trainer, shift=1e-3)
    pathwise = settings.get("latent_gradient") == "pathwise"
    sampling = Sampling(settings.get("temperature", 1.0), settings.get("latent_temperature", 1.0), 4)
    policy = trainer.model.reasoner
    with torch.no_grad():
        if pathwise:
            new = replay(policy, old, chain_noise(policy, old.chain_keys), sampling)
        else:
            new = score(policy, old, sampling)
        loss = trainer.compute_loss(trainer.model, batch).item()

    scale = 1 / 32 if settings.get("latent_logprob") == "mean" else 1.0
    low = 1 - settings.get("epsilon", 0.2)
    high = 1 + settings.get("epsilon_high", 0.2)
    kept = [True] * 8
    if settings.get("mask_truncated_completions"):
        kept = old.finished.tolist()
        assert 0 < sum(kept) < 8
    per_chain = 8 // len(old.latents)
    chains = []
    for chain in range(len(old.latents)):
        mine = range(chain * per_chain, (chain + 1) * per_chain)
        counted = [answer for answer in mine if kept[answer]]
        advantage = sum(advantages[answer] for answer in counted) / max(1, len(counted))
        of_chain = stop_losses if pathwise else chain_losses
        values = of_chain(new, before, old, chain, advantage, scale, low=low, high=high)
        chains.append(values if counted else [])
    answers = [
        answer_losses(new, before, old, answer, advantages[answer], low=low, high=high) if counts else []
        for answer, counts in enumerate(kept)
    ]
    expected = average(chains, loss_type) + average(answers, loss_type)
    assert abs(expected) > 2e-4
    assert loss == pytest.approx(expected, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_the_first_pass_has_no_loss_value_but_a_gradient(gradient, make_trainer):
    """At the sampling policy every ratio is 1, so the loss is minus the mean advantage: 0."""
    trainer = make_trainer(latent_gradient=gradient, loss_type="grpo")
    loss = trainer.compute_loss(trainer.model, next_minibatch(trainer))
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()
    assert sum(float(p.grad.abs().sum()) for p in trainer.model.parameters() if p.grad is not None) > 0.01


def masked_mean(values, mask):
    """The mean over a row's actions, then over rows."""
    return float(((values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean())


@pytest.mark.parametrize("method", ["cot", "atp_latent"])
def test_the_kl_to_the_start_is_0_at_the_start_and_grows(method, make_trainer):
    trainer = make_trainer(method, beta=0.5, loss_type="grpo", num_iterations=2)
    batch = next_minibatch(trainer)
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(0, abs=1e-5)
    start = copy.deepcopy(trainer.model.reasoner)
    move(trainer, shift=0.01)
    with torch.no_grad():
        with_kl = trainer.compute_loss(trainer.model, batch).item()
        trainer.objective.reference = None
        kl = (with_kl - trainer.compute_loss(trainer.model, batch).item()) / 0.5
        new = score(trainer.model.reasoner, batch.trajectories, Sampling(max_new_tokens=4))
        old = score(start, batch.trajectories, Sampling(max_new_tokens=4))
    # By hand: TRL's estimate of the answer tokens', and the Gaussians' closed form.
    difference = old.answers - new.answers
    by_hand = masked_mean(difference.exp() - difference - 1, batch.trajectories.answer_mask)
    if method == "atp_latent":
        exact = torch.distributions.kl_divergence(
            torch.distributions.Normal(new.chain.mean, (0.5 * new.chain.log_variance).exp()),
            torch.distributions.Normal(old.chain.mean, (0.5 * old.chain.log_variance).exp()),
        )
        by_hand += masked_mean(exact.sum(dim=-1), batch.trajectories.slot_mask)
        stops = torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=new.stop_logits),
            torch.distributions.Categorical(logits=old.stop_logits),
        )
        by_hand += masked_mean(stops, batch.trajectories.stop_mask)
    assert by_hand > 1e-3
    assert kl == pytest.approx(by_hand, rel=1e-2)


def test_the_gradient_of_the_kl_goes_through_the_latents_that_the_start_is_asked_about(make_trainer):
    trainer = make_trainer("atp_latent", beta=1.0, latent_gradient="pathwise")
    batch = next_minibatch(trainer)
    trainer.objective.reference.double()
    trainer.model.double()
    move(trainer, shift=0.05)
    weights = [p for p in trainer.model.reasoner.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]

    def kl(step):
        with torch.no_grad():
            for weight, direction in zip(weights, along, strict=True):
                weight += step * direction
        scores = trainer.objective.scores(trainer.model, batch.trajectories)
        return trainer.objective.kl_penalty(scores, batch)["kl"]

    gradients = torch.autograd.grad(kl(0.0), weights, allow_unused=True)
    pairs = zip(gradients, along, strict=True)
    slope = sum(float((each * direction).sum()) for each, direction in pairs if each is not None)
    size = 1e-4
    above, below = kl(size).item(), kl(-2 * size).item()
    assert slope == pytest.approx((above - below) / (2 * size), rel=1e-2)


DROPOUT = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}


def test_dropout_does_not_make_the_policy_another_one(make_trainer):
    """Trajectories are scored by the policy that sampled them, in every minibatch of a rollout."""
    trainer = make_trainer(family="gpt2", backbone=DROPOUT, steps_per_generation=2, loss_type="grpo")
    for _ in range(2):
        batch = next_minibatch(trainer, indices=(0, 1, 0, 1))
        loss = trainer.compute_loss(trainer.model, batch)
        assert loss.item() == pytest.approx(0, abs=1e-5)


def test_minibatches_split_a_rollout(make_trainer):
    trainer = make_trainer(steps_per_generation=2)
    first, second = (next_minibatch(trainer, indices=(0, 1, 1, 0)) for _ in range(2))
    assert first.trajectories.question_ids.shape[0] == second.trajectories.question_ids.shape[0] == 2
    assert len(first.advantages) == len(second.advantages) == 8
    assert not torch.equal(first.trajectories.chain_keys, second.trajectories.chain_keys)
    # The advantages belong to the trajectories they stand beside.
    for part in (first, second):
        texts = trainer.loaded.tokenizer.batch_decode(part.trajectories.answer_ids, skip_special_tokens=True)
        even = torch.tensor([len(text.strip()) % 2 == 0 for text in texts])
        for group in range(2):
            rows = slice(group * 4, group * 4 + 4)
            advantages, rewarded = part.advantages[rows], even[rows]
            if rewarded.any() and not rewarded.all():
                assert advantages[rewarded].min() > 0 > advantages[~rewarded].max()


def test_a_reward_sees_questions_answers_latents_and_plans(make_trainer, mixed_problems):
    seen = {}

    def spy(**columns):
        seen.update(columns)
        return [0.0] * len(columns["completions"])

    batch = next_minibatch(make_trainer(reward=spy))
    rows = 8
    assert all(len(value) == rows for value in seen.values())
    assert seen["question"] == [mixed_problems[0].question] * 4 + [mixed_problems[1].question] * 4
    assert seen["answer"] == [mixed_problems[0].answer] * 4 + [mixed_problems[1].answer] * 4
    assert set(seen["modulus"]) == {11}
    assert seen["num_latents"] == batch.trajectories.num_latents.tolist()
    assert [len(latents) for latents in seen["latents"]] == seen["num_latents"]
    assert [2 * len(plan) for plan in seen["decoded_steps"]] == seen["num_latents"]
    assert seen["finished"] == batch.trajectories.finished.tolist()
    assert bool((batch.advantages == 0).all())  # All rewards are equal.


# Whole runs.


def begins_with_the(prompts, completions, **columns):
    """1 for an answer that begins with the word 'the', which a model can learn whatever the question."""
    return [float(text.startswith("the")) for text in completions]


LEARNERS = {
    "cot": {"method": "cot"},
    "coconut": {"method": "coconut"},
    "atp_latent, score function": {"method": "atp_latent", "latent_gradient": "score_function"},
    "atp_latent, pathwise": {"method": "atp_latent", "latent_gradient": "pathwise", "answers_per_latent": 2},
}


@pytest.mark.parametrize("settings", LEARNERS.values(), ids=LEARNERS.keys())
def test_rl_raises_a_reward_that_it_can(
    settings, make_system, as_loaded, grpo_config, clock_problems, tmp_path
):
    settings = dict(settings)
    system = make_system(settings.pop("method"), backbone={"initializer_range": 0.1})
    config = grpo_config(
        tmp_path / "run",
        per_device_train_batch_size=32,
        num_generations=8,
        max_steps=25,
        max_completion_length=1,
        learning_rate=0.01,
        save_strategy="no",
        **settings,
    )
    trainer = GRPOTrainer(as_loaded(system), config, clock_problems[:40], RewardSet([begins_with_the]))
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert len(rewards) == 25
    assert sum(rewards[:3]) / 3 < 0.25
    assert sum(rewards[-5:]) / 5 > 0.8


@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_a_reward_for_stopping_shortens_the_chain(
    gradient, make_system, as_loaded, grpo_config, clock_problems, tmp_path
):
    """Only the stop head can earn this reward, whichever way gradients reach latents."""

    def few_latents(prompts, completions, num_latents, **columns):
        return [-float(count) for count in num_latents]

    system = make_system("atp_latent", backbone={"initializer_range": 0.1})
    config = grpo_config(
        tmp_path / "run",
        per_device_train_batch_size=32,
        num_generations=8,
        max_steps=25,
        max_completion_length=1,
        learning_rate=0.003,
        save_strategy="no",
        latent_gradient=gradient,
    )
    trainer = GRPOTrainer(as_loaded(system), config, clock_problems[:40], RewardSet([few_latents]))
    trainer.train()
    lengths = [row["latents/mean_length"] for row in trainer.state.log_history if "reward" in row]
    assert lengths[0] > 1
    assert sum(lengths[-5:]) / 5 < 0.5 * lengths[0]


@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_the_step_decoder_is_frozen(gradient, run_grpo, trained, weights_of, tmp_path):
    start = trained("atp_latent")
    run = run_grpo(
        tmp_path / "run", start, latent_gradient=gradient, reward_funcs=["coherence_paper", "format"]
    )
    before, after = weights_of(start), weights_of(run.path)
    decoder = [name for name in before if name.startswith("step_decoder.")]
    assert decoder
    assert all(torch.equal(before[name], after[name]) for name in decoder)
    assert any(not torch.equal(before[name], after[name]) for name in before if name not in decoder)


def test_a_run_logs_what_it_measures(run_grpo, trained, tmp_path):
    run = run_grpo(
        tmp_path / "run",
        trained("atp_latent"),
        reward_funcs=["format", "coherence_strict"],
        reward_weights=[0.5, 1.0],
        log_completions=True,
    )
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == list(range(1, 7))
    for row in rows:
        total = 0.5 * row["rewards/format/mean"] + row["rewards/coherence_strict/mean"]
        assert row["reward"] == pytest.approx(total, abs=1e-5)
        assert 0 <= row["frac_reward_zero_std"] <= 1
        assert row["clip_ratio/latents"] == row["clip_ratio/answers"] == 0  # one pass over each rollout
        assert 0 < row["completions/mean_length"] <= 4
        assert 0 <= row["latents/mean_length"] <= 6
        assert row["entropy"] > 0
        assert row["latents/sigma"] > 0
    samples = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [step for step in range(6) for _ in range(4)]
    assert {"question", "reward", "completion", "plan", "num_latents", "num_tokens"} <= samples[0].keys()


@pytest.mark.parametrize("method", ["cot", "coconut", "sim_cot"])
def test_every_method_can_be_reinforced(method, run_grpo, trained, tmp_path):
    run = run_grpo(tmp_path / "run", trained(method), max_steps=2, beta=0.1)
    assert run.record["method"] == method
    assert all(math.isfinite(row["loss"]) for row in metrics_of(run))
    assert load_model(run.path).reasoner.config.method == method


def test_coherence_alone_needs_no_labels(
    make_system, as_loaded, overfit, grpo_config, mixed_problems, tmp_path
):
    """A model that decodes to equations, on questions without steps or answers."""
    system = make_system("atp_latent", initial_log_variance=-4.0)
    overfit(system, mixed_problems, bound=2.0, steps=150)
    questions = [Problem(problem.question, (), "") for problem in mixed_problems]
    rewards = RewardSet(["format", "coherence_strict"], [0.5, 1.0])
    config = grpo_config(tmp_path / "run", max_steps=3, save_strategy="no", latent_temperature=2.0)
    trainer = GRPOTrainer(as_loaded(system), config, questions, rewards)
    before = copy.deepcopy(system.reasoner.state_dict())
    trainer.train()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    assert len(rows) == 3
    assert max(row["rewards/coherence_strict/mean"] for row in rows) > 0
    assert any(not torch.equal(before[name], weight) for name, weight in system.reasoner.state_dict().items())


def test_rl_needs_a_model(run_grpo, data_arguments, grpo_config, tmp_path):
    with pytest.raises(ValueError, match="set model_name_or_path"):
        train_grpo(ModelArguments(), data_arguments, grpo_config(tmp_path / "a"))
    with pytest.raises(ValueError, match="RL starts from a latentplan model"):
        run_grpo(tmp_path / "b", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("overrides", "objectives"),
    [
        ({"latent_head": "projected"}, {"text": 1.0, "step_decoder": 1.0, "stop": 1.0}),
        ({"stop_head": False}, {"text": 1.0, "step_decoder": 1.0, "kl": 1e-3}),
        ({}, {"text": 1.0, "stop": 1.0, "kl": 1e-3}),
    ],
    ids=["no VAE", "no stop head", "no decoder"],
)
@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_every_ablation_can_be_reinforced(
    overrides, objectives, gradient, make_system, as_loaded, grpo_config, mixed_problems, tmp_path
):
    system = make_system("atp_latent", objectives=objectives, **overrides)
    config = grpo_config(
        tmp_path / "run", max_steps=1, save_strategy="no", latent_gradient=gradient, beta=0.1, temperature=1.5
    )
    trainer = GRPOTrainer(as_loaded(system), config, mixed_problems, RewardSet(["accuracy", "format"]))
    trainer.train()
    assert math.isfinite(trainer.state.log_history[0]["loss"])


def test_equal_rewards_have_no_deviation_whatever_the_rounding(make_trainer):
    # 8 times 1 + 0.5 + 0.1, the paper's reward of a right answer: torch's deviation is 1.3e-7.
    trainer = make_trainer(num_generations=8)
    rewards = torch.full((8,), 1.6)
    assert rewards.std() > 0
    trainer._record_rollout(next_minibatch(trainer, [0]).trajectories, rewards)
    assert trainer.loss_parts["frac_reward_zero_std"] == 1


# Rewards that are not there.


def sometimes(prompts, completions, **columns):
    """None and NaN for some answers; for the others what they hold."""
    return [(None, math.nan, 0.0, 1.0)[len(text) % 4] for text in completions]


def never(prompts, completions, **columns):
    return [None] * len(completions)


def endless(prompts, completions, **columns):
    return [math.inf] * len(completions)


def test_trajectories_without_a_reward_leave_the_others_as_they_are(make_trainer):
    """Advantages, metrics, and what a chain of latents with several answers is worth."""
    rewards = [1.0, None, 0.0, None, None, None, 0.5, None]
    trainer = make_trainer(
        reward=lambda completions, **columns: rewards,
        answers_per_latent=2,
        num_iterations=2,
        loss_type="grpo",
    )
    batch = next_minibatch(trainer)
    high = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert batch.advantages.tolist() == pytest.approx([high, 0, -high, 0, 0, 0, 0, 0], abs=1e-5)
    assert batch.has_reward.tolist() == [reward is not None for reward in rewards]
    parts = {name: float(value) for name, value in trainer.loss_parts.items()}
    assert parts["reward"] == pytest.approx(0.5)
    assert parts["reward_std"] == pytest.approx(math.sqrt(0.5))  # of the group with two
    assert parts["frac_reward_zero_std"] == 0.5
    assert parts["frac_reward_none"] == 5 / 8
    # Each chain of the first question has one answer with a reward: not half of its advantage.
    scores = trainer.objective.scores(trainer.model, batch.trajectories)
    new = trainer.objective.log_probs(trainer.model, scores, batch)
    latents, answers = trainer.objective.actions(new, batch.old, batch)
    found = trainer.objective.action_advantages(latents, batch)
    assert found[:, 0].tolist() == pytest.approx([high, -high, 0, 0])
    assert torch.equal(trainer.objective.action_advantages(answers, batch)[:, 0], batch.advantages)


def test_a_run_counts_what_has_no_reward_and_names_who_gave_none(run_grpo, trained, tmp_path):
    names = [f"{__name__}:{name}" for name in ("sometimes", "never")]
    run = run_grpo(tmp_path / "run", trained("atp_latent"), reward_funcs=names, log_completions=True)
    rows = metrics_of(run)
    for row in rows:
        assert 0 < row["frac_reward_none"] < 1
        assert row["frac_reward_none"] == pytest.approx(row["rewards/sometimes/frac_none"])
        assert row["rewards/never/frac_none"] == 1
        assert row["reward"] == pytest.approx(row["rewards/sometimes/mean"])
        assert "rewards/never/mean" not in row
        assert math.isfinite(row["loss"])
    (warning,) = [each for each in run.record["warnings"] if each["name"] == "missing_rewards"]
    assert "sometimes in " in warning["message"]
    assert "never in 100.0%" in warning["message"]
    samples = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert None in [sample["reward"] for sample in samples]
    assert "NaN" not in (run.path / "samples.jsonl").read_text()


@pytest.mark.parametrize("settings", [{}, {"objective": "latent_value", "answers_per_latent": 4}])
def test_without_any_reward_nothing_is_learned_and_the_run_says_so(
    settings, run_grpo, trained, assert_same_weights, tmp_path
):
    start = trained("coconut" if settings else "atp_latent")
    warmup = {"value_warmup_steps": 2} if settings else {}
    run = run_grpo(
        tmp_path / "run", start, reward_funcs=[f"{__name__}:never"], max_steps=2, **settings, **warmup
    )
    assert_same_weights(start, run.path)
    assert all("reward" not in row and row["frac_reward_none"] == 1 for row in metrics_of(run))
    (warning,) = [each for each in run.record["warnings"] if each["name"] == "missing_rewards"]
    assert warning["message"].startswith("no reward applies to any trajectory, so nothing is learned")
    assert "never" in warning["message"]


def test_an_infinite_reward_is_refused_by_its_name(run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match="the reward 'endless' returned inf: a reward must be finite"):
        run_grpo(tmp_path / "run", trained("atp_latent"), reward_funcs=["format", f"{__name__}:endless"])
