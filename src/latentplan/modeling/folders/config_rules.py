"""Types and ranges of the values of a saved configuration, which are checked when it is read."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from math import isfinite
from typing import Any, NamedTuple

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

LORA_SETTINGS = {
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "use_dora",
    "use_rslora",
}
"""The fields of peft's `LoraConfig` that a checkpoint may set; others import modules."""


class Rule(NamedTuple):
    """What a value must be, in words, and a function that checks it."""

    what: str
    holds: Callable[[Any], bool]


class InvalidConfigError(ValueError):
    """A configuration has an invalid value; the message names it."""


def whole(least: int, most: int) -> Rule:
    """Makes the rule for a whole number in a range."""
    return Rule(f"a whole number from {least} to {most}", lambda value: _whole(value, least, most))


def number(above: float, most: float) -> Rule:
    """Makes the rule for a number above one bound and up to another."""
    return Rule(
        f"a number above {above:g}, up to {most:g}", lambda value: _real(value) and above < value <= most
    )


def optional(rule: Rule) -> Rule:
    """Makes the rule that also allows null."""
    return Rule(f"{rule.what}, or null", lambda value: value is None or rule.holds(value))


def text(least: int = 0) -> Rule:
    """Makes the rule for a text of at least so many characters, white space around it not counted."""
    what = "a text" if least else "a text or nothing"
    return Rule(what, lambda value: isinstance(value, str) and len(value.strip()) >= least)


DTYPE = Rule(
    "the name of a floating-point type",
    lambda value: value in ("float16", "bfloat16", "float32", "float64", "auto", None),
)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
TOKEN = whole(0, 2**31 - 1)
TOKENS = Rule(
    "a token's id or a list of ids",
    lambda value: (
        TOKEN.holds(value) or (isinstance(value, list) and value != [] and all(map(TOKEN.holds, value)))
    ),
)
SETTINGS = Rule(
    "a mapping of settings by name",
    lambda value: isinstance(value, dict) and all(isinstance(name, str) for name in value),
)
_LORA: dict[str, Rule] = {
    "r": whole(1, 8192),
    "lora_alpha": number(0, 1e6),
    "lora_dropout": Rule("a number from 0 to below 1", lambda value: _real(value) and 0 <= value < 1),
    "target_modules": Rule(
        "'all-linear', null, or a list of modules' names",
        lambda value: (
            value in (None, "all-linear")
            or (isinstance(value, list) and value != [] and all(isinstance(each, str) for each in value))
        ),
    ),
}
_LORA |= dict.fromkeys(("use_dora", "use_rslora"), FLAG)
_LORA["modules_to_save"] = optional(_LORA["target_modules"])
_LORA |= dict.fromkeys(
    ("rank_pattern", "alpha_pattern"),
    Rule(
        "a mapping of modules' names to whole numbers",
        lambda value: (
            isinstance(value, dict)
            and all(isinstance(name, str) and _whole(each, 1, 8192) for name, each in value.items())
        ),
    ),
)
LORA = Rule(
    f"a mapping of {', '.join(sorted(LORA_SETTINGS))}",
    lambda value: (
        isinstance(value, dict)
        and set(value) <= LORA_SETTINGS
        and all(_LORA[name].holds(setting) for name, setting in value.items())
    ),
)
# Published models are far below these bounds; beyond them one number would cost minutes or all memory.
_MOST = (
    (re.compile("layer(?!_norm)|n_block|num_block|depth"), 2048),
    (re.compile("expert|head|group"), 65_536),
    (re.compile("label"), 100_000),
    (re.compile(""), 2**53),
)
_SETTINGS = {item.name for item in fields(PreTrainedConfig)} | {"model_type"}
_FIXED = {
    name
    for name in set(dir(PreTrainedConfig)) - _SETTINGS
    if getattr(inspect.getattr_static(PreTrainedConfig, name), "fset", None) is None
}
"""Functions and constants of configurations, which a file must not replace."""


def check_values(
    config_class: type[PreTrainedConfig], values: Mapping[str, Any], rules: Mapping[str, Rule]
) -> None:
    """Checks the values of a file before a configuration is made of them.

    Args:
        config_class: its class.
        values: of the file.
        rules: of our own settings; `backbone_config` is required and checked, too.

    Raises:
        InvalidConfigError: names the setting, says what it must be and what it is.
    """
    found = values.get("model_type")
    if found != config_class.model_type:
        raise InvalidConfigError(f"model_type must be {config_class.model_type!r}, got {found!r}")
    if values.get("quantization_config") is not None:
        raise InvalidConfigError("quantization_config: quantised weights cannot be loaded")
    for name, rule in rules.items():
        if name in values and not rule.holds(values[name]):
            raise InvalidConfigError(f"{name} must be {rule.what}, got {_shown(values[name])}")
    _check_others({key: value for key, value in values.items() if key not in rules})
    backbone = values.get("backbone_config")
    if isinstance(backbone, PreTrainedConfig):
        return
    if not isinstance(backbone, dict):
        raise InvalidConfigError(f"backbone_config must describe the language model, got {_shown(backbone)}")
    kind = backbone.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise InvalidConfigError(f"backbone_config: transformers knows no model_type {_shown(kind)}")
    for nested in _model_types(backbone):
        if nested in ("latent_reasoner", "latent_step_decoder"):
            raise InvalidConfigError(f"backbone_config: a {nested} cannot stand inside another model")
    try:
        CONFIG_MAPPING[kind](**{key: value for key, value in backbone.items() if key != "model_type"})
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InvalidConfigError(f"backbone_config is none of a {kind} model: {reason}") from error


def _model_types(value: Any) -> Iterator[Any]:
    """Yields every `model_type` in nested mappings and lists."""
    if isinstance(value, Mapping):
        if "model_type" in value:
            yield value["model_type"]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _model_types(each)


def _check_others(values: Mapping[str, Any]) -> None:
    """Refuses numbers that would cost minutes or all memory, and names that would replace a function."""
    for path, key, value in _all_values(values):
        if key in _FIXED:
            raise InvalidConfigError(f"{path}: there is no such setting")
        most = next(bound for pattern, bound in _MOST if pattern.search(key))
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > most:
            raise InvalidConfigError(f"{path} must be at most {most}, got {_shown(value)}")


def _all_values(values: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yields every value with its path and its own key, also those in nested mappings and lists."""
    if path:
        yield path, key, values
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _all_values(value, f"{path}.{name}" if path else str(name), str(name))
    elif isinstance(values, list):
        for value in values:
            yield from _all_values(value, path, key)


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
