"""Warnings: each rule on made-up metrics, just inside and just beyond its threshold."""

import json

import pytest
import torch

from latentplan.training import alerts as watching
from latentplan.training.alerts import QUIET_LINES, RL_RULES, SFT_RULES, Situation, Watcher
from latentplan.training.rl_losses import between_question_std
from latentplan.training.run_directory import RunDirectory

RL = Situation(num_slots=10, has_stop_head=True)
SFT = Situation(num_slots=10, has_stop_head=True, last_stage=3)


def constant(lines, **values):
    return [{"step": step, **values} for step in range(lines)]


@pytest.mark.parametrize(
    ("rule", "name", "fine", "bad", "lines", "advice"),
    [
        ("unread_plans", "reconstruction", 0.9, 0.89, 1, "Train the supervised stage longer"),
        ("unread_plans", "eval_reconstruction", 0.95, 0.5, 1, "give coherence less weight"),
        ("no_contrast", "frac_reward_zero_std", 0.79, 0.81, 10, "raise num_generations"),
        ("saturated_ratios", "clip_ratio/region_mean", 0.3, 0.31, 5, "lower learning_rate"),
        ("saturated_ratios", "clip_ratio/clamped", 0.1, 0.11, 5, "latent_logprob: mean"),
        ("collapsed_latents", "latents/spread", 0.05, 0.049, 5, "smaller kl weight"),
        ("collapsed_latents", "latents/sigma", 1e-3, 9e-4, 5, "Raise latent_temperature"),
        ("runaway_lengths", "latents/mean_length", 9.7, 9.9, 5, "Lower learning_rate"),
        ("runaway_lengths", "latents/mean_length", 0.3, 0.1, 5, "none of the 10 latent slots"),
        ("runaway_lengths", "completions/clipped_ratio", 0.25, 0.26, 5, "max_completion_length"),
    ],
)
def test_rules_of_rl(rule, name, fine, bad, lines, advice):
    check = RL_RULES[rule]
    assert check(constant(lines, **{name: fine}), RL) is None
    assert check(constant(lines - 1, **{name: bad}), RL) is None
    assert advice in check(constant(lines, **{name: bad}), RL)
    # A line without the metric, such as an evaluation, says nothing new.
    assert check([*constant(lines, **{name: bad}), {"step": lines, "other": 1.0}], RL) is None


def test_missing_rewards_are_named():
    def check(total, **shares):
        parts = {f"rewards/{name}/frac_none": share for name, share in shares.items()}
        return RL_RULES["missing_rewards"]([{"frac_reward_none": total, **parts}], RL)

    assert check(0.0, accuracy=0.0, format=0.0) is None
    assert check(0.0, accuracy=0.5, format=0.0) is None, "another reward applies there"
    assert "accuracy" in check(0.0, accuracy=1.0, format=0.0)
    some = check(0.25, accuracy=0.25, format=0.5, coherence=0.0)
    assert "to 25.0% of the trajectories (None or NaN: accuracy in 25.0%, format in 50.0%)" in some
    assert "nothing is learned (None or NaN: accuracy in 100.0%)" in check(1.0, accuracy=1.0)
    assert RL_RULES["missing_rewards"]([{"frac_reward_none": 1.0}, {"eval_accuracy": 0.5}], RL) is None


def test_all_slots_are_no_surprise_without_a_stop_head():
    rows = constant(5, **{"latents/mean_length": 10.0})
    assert RL_RULES["runaway_lengths"](rows, Situation(num_slots=10)) is None


def test_a_loss_spikes_within_its_stage():
    check = SFT_RULES["loss_spike"]
    usual = constant(10, loss=2.0, stage=1.0)
    assert check([*usual, {"loss": 5.9, "stage": 1.0}], SFT) is None
    assert "jumped to 6.1, from 2" in check([*usual, {"loss": 6.1, "stage": 1.0}], SFT)
    assert check([*usual, {"loss": 6.1, "stage": 2.0}], SFT) is None
    assert check([*usual[1:], {"loss": 6.1, "stage": 1.0}], SFT) is None
    assert check([*usual, {"loss": float("nan"), "stage": 1.0}], SFT) is None


def test_a_stop_head_is_stuck_only_where_labels_differ_and_at_the_last_stage():
    check = SFT_RULES["stuck_stop_head"]

    def at(used, needed, stage=3.0):
        return [{"loss": 1.0, "stage": stage}, {"eval_latents": used, "eval_latents_needed": needed}]

    assert "use 10.0 of 10 latents, where 4.0 are needed" in check(at(10.0, 4.0), SFT)
    assert "use 0.0 of 10" in check(at(0.0, 4.0), SFT)
    assert check(at(10.0, 9.0), SFT) is None
    assert check(at(6.0, 4.0), SFT) is None
    assert check(at(10.0, 4.0, stage=2.0), SFT) is None


@pytest.fixture
def watcher(tmp_path):
    return Watcher(RunDirectory(tmp_path / "run", {}, "test"), RL_RULES, RL)


def given(watcher):
    return json.loads((watcher.run.path / "run.json").read_text())["warnings"]


def test_a_warning_is_given_once_in_a_while_and_recorded(watcher, monkeypatch):
    said = []
    monkeypatch.setattr(watching, "warn", said.append)
    for step in range(QUIET_LINES + 20):
        watcher.look({"step": step, "frac_reward_zero_std": 1.0})
    assert len(said) == 2
    assert [(each["step"], each["name"]) for each in given(watcher)] == [
        (9, "no_contrast"),
        (9 + QUIET_LINES, "no_contrast"),
    ]
    assert given(watcher)[0]["message"] == said[0]


def test_a_run_that_goes_on_forgets_what_came_after_its_checkpoint(watcher, monkeypatch):
    monkeypatch.setattr(watching, "warn", lambda message: None)
    for _ in range(2):  # the start is looked at again each time
        Watcher(watcher.run, RL_RULES, RL).look({"step": 0, "reconstruction": 0.5})
    for step in range(1, 30):
        watcher.look({"step": step, "frac_reward_zero_std": 1.0})
    assert [each["step"] for each in given(watcher)] == [0, 10]
    state = type("State", (), {"is_world_process_zero": True, "global_step": 9})
    Watcher(watcher.run, RL_RULES, RL).on_train_begin(None, state, None)
    assert [each["step"] for each in given(watcher)] == [0]


def test_rl_from_a_decoder_that_reads_nothing_warns(run_grpo, trained, capsys, tmp_path):
    run = run_grpo(tmp_path / "run", trained("atp_latent"), max_steps=1, save_strategy="no")
    assert run.record["starting_reconstruction"] < 0.9
    assert [each["name"] for each in run.record["warnings"]] == ["unread_plans", "silent_latents"]
    assert set(run.record["starting_variance"]) == {"latents", "stops", "answers"}
    assert "warning: the decoder reads" in capsys.readouterr().err


def test_the_spread_of_latents_by_hand():
    # Two questions of two chains, one slot in one dimension: means 1 and 3 after averaging the chains.
    mean = torch.tensor([0.0, 2.0, 3.0, 3.0]).reshape(4, 1, 1)
    expected = (2 / (1 + 9)) ** 0.5
    assert float(between_question_std(mean, torch.ones(4, 1), draws=2)) == pytest.approx(expected)
    # A chain that does not use the slot does not count, nor does a slot that only one question uses.
    mask = torch.tensor([0.0, 1.0, 1.0, 1.0]).reshape(4, 1)
    assert float(between_question_std(mean, mask, draws=2)) == pytest.approx((0.5 / (4 + 9)) ** 0.5)
    wide = torch.cat([mean, 100 * mean], dim=1)
    used = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert float(between_question_std(wide, used, draws=2)) == pytest.approx(expected)
    assert float(between_question_std(torch.ones(4, 1, 1), torch.ones(4, 1), draws=2)) == 0
    assert between_question_std(mean[:2], torch.ones(2, 1), draws=2).isnan()


def test_silent_latents_are_told_where_their_log_probabilities_are_learned_from():
    scored, other = Situation(num_slots=4, scores_latents=True), Situation(num_slots=4)
    silent = [{"step": 0, "variance/latents": 0.004, "variance/stops": 0.0, "variance/answers": 0.996}]
    message = RL_RULES["silent_latents"](silent, scored)
    assert message.startswith("0.4% of the differences")
    assert "latent_gradient: pathwise" in message
    assert RL_RULES["silent_latents"](silent, other) is None
    later = [*silent, {"step": 9, "eval_variance/latents": 0.3, "eval_variance/answers": 0.7}]
    assert RL_RULES["silent_latents"](later, scored) is None
    nothing = [{"step": 0, "variance/latents": 0.0, "variance/stops": 0.0, "variance/answers": 0.0}]
    assert RL_RULES["silent_latents"](nothing, scored) is None
    assert RL_RULES["silent_latents"]([], scored) is None


def test_a_gradient_of_noise_is_told_with_the_part_that_it_moves():
    rule, situation = RL_RULES["noisy_gradient"], Situation(num_slots=4)

    def rows(*cosines):
        return [{"step": step, "eval_agreement/latent_head": each} for step, each in enumerate(cosines)]

    message = rule(rows(0.5, 0.03, -0.01), situation)
    assert message.startswith("two halves of the questions agree by 0.01 on where to move the latent_head")
    scored = rule(rows(0.03, -0.01), Situation(num_slots=4, scores_latents=True))
    assert "pathwise" in scored
    assert "pathwise" not in message, "no advice to those who follow it"
    assert rule(rows(0.5, 0.03, 0.02), situation) is None
    assert rule(rows(0.0), situation) is None, "one evaluation is not enough"
    assert rule([], situation) is None
