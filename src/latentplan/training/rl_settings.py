"""Settings of RL that do not go together, or that an estimator would not read, are refused by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.token_loop import InputRule
from latentplan.training.arguments import GRPOConfig

_OF_LATENTS = ("latent_logprob", "first_slot_of_best")
_OF_ADVANTAGES = (
    "baseline",
    "scale_rewards",
    "mask_invalid_samples",
    "filter_groups",
    "mask_truncated_completions",
)
_OF_RATIOS = ("epsilon", "epsilon_high", "max_log_ratio")
_OF_VALUES = (
    "value_learning_rate",
    "value_warmup_steps",
    "value_positive_weight",
    "value_states",
    "value_loss_trains_policy",
    "value_head_sizes",
    "value_head_activation",
)
_OF_LIKELIHOOD = (*_OF_LATENTS, *_OF_ADVANTAGES, "loss_type", *_OF_VALUES)
UNREAD: dict[str, tuple[str, ...]] = {
    "score_function": _OF_VALUES,
    "pathwise": (*_OF_LATENTS, *_OF_VALUES),
    "answers": (*_OF_LATENTS, *_OF_VALUES),
    "value": (*_OF_LATENTS, *_OF_ADVANTAGES, *_OF_RATIOS),
    "likelihood": _OF_LIKELIHOOD,
    "log_likelihood": _OF_LIKELIHOOD,
}
"""The settings that have no meaning under an estimator."""


def choose(setting: str, table: dict[str, Any], name: str) -> Any:
    """The entry `name` of `table`. Raises ValueError that lists the names where there is none."""
    if name not in table:
        raise ValueError(f"{setting} must be one of {sorted(table)}, got {name!r}")
    return table[name]


def check_settings(config: GRPOConfig, model: LoadedModel) -> None:
    """Raises ValueError for settings that mean nothing together or for this model; says what to change."""
    if config.num_generations < 2 and config.estimator != "value":
        raise ValueError(
            f"num_generations must be 2 or more, got {config.num_generations}: a trajectory is compared with "
            "others of its question"
        )
    if model.reasoner.input_rule.draws:
        raise ValueError(
            f"input_rule {model.reasoner.config.input_rule} draws what is read after each token, and these "
            "draws would be actions that RL leaves out: reinforce the model with another input_rule"
        )
    defaults = {each.name: each.default for each in fields(config)}
    for name in UNREAD.get(config.estimator, ()):
        if getattr(config, name) != defaults[name]:
            raise ValueError(
                f"estimator {config.estimator} does not read {name}, which is {getattr(config, name)!r}: "
                f"leave it at {defaults[name]!r}"
            )
    if config.baseline == "none" and config.scale_rewards != "none":
        raise ValueError(
            "baseline none needs scale_rewards none: without a baseline equal rewards, whose deviation is 0, "
            "would be divided by it"
        )
    if config.use_bias_correction_kl and not config.beta:
        raise ValueError(
            "use_bias_correction_kl corrects the KL divergence to the starting policy, which beta 0 leaves "
            "out: set beta, or use_bias_correction_kl to false"
        )
    if config.likelihood_weight < 0 or (config.likelihood_weight and config.estimator != "pathwise"):
        raise ValueError(
            f"likelihood_weight={config.likelihood_weight} teaches latents what makes the right answer "
            "likely: it needs a number above 0, and estimator pathwise"
        )
    if config.likelihood_weight and model.reasoner.config.input_rule != InputRule.name:
        raise ValueError(
            f"likelihood_weight scores right answers as tokens beside samples that input_rule "
            f"{model.reasoner.config.input_rule} read as mixtures: set likelihood_weight to 0"
        )
    if config.likelihood_weight and not model.reasoner.config.num_slots:
        raise ValueError(f"likelihood_weight moves latents, and {model.reasoner.config.method} has none")
    needs_plans = model.step_decoder is not None and config.estimator == "pathwise"
    if config.plan_temperature < 0 or (config.plan_temperature and not needs_plans):
        raise ValueError(
            f"plan_temperature={config.plan_temperature} teaches latents through the step decoder: it "
            "needs a number above 0, estimator pathwise, and a model with a step decoder"
        )
