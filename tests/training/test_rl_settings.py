"""Settings of RL that mean nothing together, or under an estimator, are refused before training."""

import pytest

from latentplan.training.configs import UNREAD, check_settings
from latentplan.training.latent_gradients import ESTIMATORS

ANOTHER = {
    "latent_logprob": "mean",
    "first_slot_of_best": True,
    "baseline": "leave_one_out",
    "scale_rewards": "batch",
    "mask_invalid_samples": True,
    "filter_groups": True,
    "mask_truncated_completions": True,
    "epsilon": 0.3,
    "epsilon_high": 0.3,
    "max_log_ratio": 1.0,
    "loss_type": "dr_grpo",
    "value_learning_rate": 1e-3,
    "value_warmup_steps": 3,
    "value_positive_weight": 2.0,
    "value_states": "hidden_states",
    "value_loss_trains_policy": True,
    "value_head_sizes": [8],
    "value_head_activation": "relu",
}


@pytest.fixture
def check(make_system, as_loaded, grpo_config, tmp_path):
    def refuse(method="atp_latent", **settings):
        check_settings(grpo_config(tmp_path / "run", **settings), as_loaded(make_system(method)))

    return refuse


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_estimator_is_told_which_settings_it_does_not_read(estimator, check):
    check(estimator=estimator)
    for name, value in ANOTHER.items():
        if name in UNREAD.get(estimator, ()):
            with pytest.raises(ValueError, match=f"estimator {estimator} does not read {name}, which is"):
                check(estimator=estimator, **{name: value})
        else:
            check(estimator=estimator, **{name: value})
    assert set(UNREAD.get(estimator, ())) <= set(ANOTHER)


def test_rewards_without_a_baseline_are_not_divided_by_their_deviation(check):
    check(baseline="none", scale_rewards="none")
    for scale in ("group", "batch"):
        with pytest.raises(ValueError, match="baseline none needs scale_rewards none"):
            check(baseline="none", scale_rewards=scale)


def test_a_group_is_more_than_one(check):
    with pytest.raises(ValueError, match="num_generations must be 2 or more, got 1"):
        check(num_generations=1)
    check(num_generations=1, estimator="value")


def test_a_correction_of_the_kl_needs_the_kl(check):
    check(use_bias_correction_kl=True, beta=0.1)
    with pytest.raises(ValueError, match=r"use_bias_correction_kl corrects the KL .*: set beta"):
        check(use_bias_correction_kl=True)
