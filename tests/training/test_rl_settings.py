"""Settings of RL that mean nothing together, or with an objective, are refused before training."""

from dataclasses import dataclass

import pytest
import torch

from latentplan.common.plugins import setting
from latentplan.training.configs import GRPOConfig, flatten_recipe
from latentplan.training.latent_gradients import LATENT_GRADIENTS, LatentGradient
from latentplan.training.objectives import (
    complete_settings,
    get_objective,
    make_objective,
    objectives,
    own_settings,
)
from latentplan.training.objectives.grpo import GRPO
from latentplan.training.objectives.objective import RLObjective

ANOTHER = {
    "latent_logprob": "mean",
    "first_slot_of_best": True,
    "baseline": "leave_one_out",
    "scale_rewards": "batch",
    "mask_invalid_samples": True,
    "filter_groups": True,
    "mask_truncated_completions": True,
    "plan_temperature": 0.5,
    "epsilon": 0.3,
    "epsilon_high": 0.3,
    "max_log_ratio": 1.0,
    "loss_type": "dr_grpo",
}
OF_LATENTS = {"latent_logprob", "first_slot_of_best"}
ADVANTAGES = {"baseline", "scale_rewards", "mask_invalid_samples", "filter_groups"}
RATIOS = {"epsilon", "epsilon_high", "max_log_ratio"}
OF_SAMPLES = {"mask_truncated_completions", "plan_temperature"}
IGNORED = {
    "grpo": set(),
    "latent_value": OF_LATENTS | ADVANTAGES | RATIOS | OF_SAMPLES,
    "reference_likelihood": OF_LATENTS | ADVANTAGES | OF_SAMPLES | {"loss_type"},
}


@pytest.fixture
def check(make_system, as_loaded, grpo_config, tmp_path):
    def refuse(method="atp_latent", **settings):
        model = as_loaded(make_system(method))
        make_objective(grpo_config(tmp_path / "run", **settings), model.reasoner).check(model)

    return refuse


@pytest.mark.parametrize("objective", IGNORED)
def test_an_objective_refuses_the_settings_that_it_does_not_read(objective, check):
    check(objective=objective)
    for name, value in ANOTHER.items():
        settings = {"objective": objective, name: value}
        if name == "plan_temperature":
            settings["latent_gradient"] = "pathwise"
        if name in IGNORED[objective]:
            with pytest.raises(ValueError, match=f" does not read {name}, which is {value!r}: leave it at"):
                check(**settings)
        else:
            check(**settings)


@pytest.mark.parametrize("gradient", LATENT_GRADIENTS)
def test_a_latent_gradient_refuses_the_settings_of_another_one(gradient, check):
    check(latent_gradient=gradient)
    for name in OF_LATENTS:
        settings = {"latent_gradient": gradient, name: ANOTHER[name]}
        if gradient == "score_function":
            check(**settings)
        else:
            with pytest.raises(ValueError, match=f"latent_gradient {gradient} does not read {name}"):
                check(**settings)


@pytest.mark.parametrize("objective", ["latent_value", "reference_likelihood"])
def test_an_objective_that_goes_through_the_latents_needs_the_pathwise_gradient(objective, check):
    check(objective=objective, latent_gradient="pathwise")
    for gradient in ("score_function", "none"):
        with pytest.raises(ValueError, match=f"{objective} needs latent_gradient pathwise, got '{gradient}'"):
            check(objective=objective, latent_gradient=gradient)


def test_rewards_without_a_baseline_are_not_divided_by_their_deviation(check):
    check(baseline="none", scale_rewards="none")
    for scale in ("group", "batch"):
        with pytest.raises(ValueError, match="baseline none needs scale_rewards none"):
            check(baseline="none", scale_rewards=scale)


def test_a_group_is_more_than_one(check):
    with pytest.raises(ValueError, match="num_generations must be 2 or more, got 1"):
        check(num_generations=1)
    check(num_generations=1, objective="latent_value")


def test_a_correction_of_the_kl_needs_the_kl(check):
    check(use_bias_correction_kl=True, beta=0.1)
    with pytest.raises(ValueError, match=r"use_bias_correction_kl corrects the KL .*: set beta"):
        check(use_bias_correction_kl=True)


def test_a_setting_of_another_objective_is_refused_by_name(check):
    with pytest.raises(
        ValueError,
        match="value_warmup_steps is a setting of objective latent_value; this run's objective is grpo",
    ):
        check(objective_settings={"value_warmup_steps": 3})
    with pytest.raises(ValueError, match=r"likelihood_weight is a setting of objective.* grpo.*; this run's"):
        check(objective="latent_value", objective_settings={"likelihood_weight": 1.0})
    with pytest.raises(ValueError, match="objective grpo has no setting 'speed': its settings are"):
        check(objective_settings={"speed": 3})
    with pytest.raises(ValueError, match="value_warmup_steps of objective latent_value must be int, got '3'"):
        check(objective="latent_value", objective_settings={"value_warmup_steps": "3"})


def test_an_objective_completes_the_settings_of_a_run(tmp_path):
    config = GRPOConfig(str(tmp_path), use_cpu=True, objective="reference_likelihood")
    complete_settings(config)
    assert config.latent_gradient == "pathwise"
    assert config.objective_settings == {"maximize": "log_likelihood"}
    saved = flatten_recipe((config,))
    assert saved["maximize"] == "log_likelihood"
    assert "objective_settings" not in saved
    plain = GRPOConfig(str(tmp_path), use_cpu=True)
    complete_settings(plain)
    assert (plain.latent_gradient, plain.objective_settings) == ("score_function", {"likelihood_weight": 0.0})


def test_every_objective_has_a_name_and_help_for_its_settings():
    assert set(objectives()) >= {"grpo", "latent_value", "reference_likelihood"}
    for name, objective in objectives().items():
        assert get_objective(name) is objective
        assert set(own_settings(name)).isdisjoint(GRPOConfig.__dataclass_fields__)
        assert all(
            each.metadata["help"] for each in vars(objective.settings_class)["__dataclass_fields__"].values()
        )


# Parts of one's own, by `package.module:Name`.


def half_of_the_best(rewards, valid):
    return 0.5 * rewards.amax(dim=1, keepdim=True)


def ten(rewards, valid, eps):
    return torch.tensor(10.0)


def summed(loss, mask, **sizes):
    return (loss * mask).sum()


class Attached(LatentGradient):
    through_latents = True


@dataclass
class Settings:
    floor: float = setting(0.25, "the least advantage")


class Floored(GRPO):
    name = "floored"
    settings_class = Settings
    adds_reference_answers = False

    def check(self, model):
        RLObjective.check(self, model)

    def advantages(self, rewards, finished):
        return super().advantages(rewards, finished).clamp(min=self.settings.floor)


OWN = {
    "baseline": f"{__name__}:half_of_the_best",
    "scale_rewards": f"{__name__}:ten",
    "loss_type": f"{__name__}:summed",
    "latent_gradient": f"{__name__}:Attached",
    "objective": f"{__name__}:Floored",
}


def test_baseline_scale_average_gradient_and_objective_can_be_ones_own(make_system, grpo_config, tmp_path):
    reasoner = make_system("atp_latent").reasoner
    config = grpo_config(tmp_path / "run", **OWN, objective_settings={"floor": 0.1})
    objective = make_objective(config, reasoner)
    # Rewards 1 and 5 in a group of 4 with 2 and 3: minus 2.5, over 10, and at least 0.1.
    found = objective.advantages(torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.ones(4).bool())
    torch.testing.assert_close(found, torch.tensor([0.1, 0.1, 0.1, 0.25]))
    assert objective.loss_type(torch.tensor([[1.0, 2.0]]), torch.ones(1, 2)) == 3
    assert objective.gradient.through_latents


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("value", [f"{__name__}:nothing", "nowhere_at_all:nothing", "nothing"])
def test_what_is_not_there_is_refused(name, value, make_system, grpo_config, tmp_path):
    message = f"{name} must be one of .*, or a .*, got '{value}'|there is no module 'nowhere_at_all'"
    with pytest.raises(ValueError, match=message):
        make_objective(GRPOConfig(str(tmp_path), use_cpu=True, **{name: value}), make_system("cot").reasoner)
