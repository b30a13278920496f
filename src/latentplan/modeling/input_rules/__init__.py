"""Rules for the next input of the token loop, one file each."""

from __future__ import annotations

from typing import Any

from latentplan.common.plugins import CodeSource, import_named, modules_of, names_own_code
from latentplan.modeling.token_loop import InputRule


def input_rules() -> dict[str, type[InputRule]]:
    """Returns the rules by name: plain tokens, and those of this folder."""
    found = [each for module in modules_of(__name__) for each in vars(module).values()]
    rules = [each for each in found if isinstance(each, type) and issubclass(each, InputRule)]
    return {rule.name: rule for rule in rules if "name" in vars(rule)}


def input_rule(
    name: str, settings: dict[str, Any] | None = None, source: CodeSource | None = None
) -> InputRule:
    """Makes a rule by name: one of `input_rules`, or the user's own as `package.module:Class`.

    Args:
        name: of the rule.
        settings: its keyword arguments.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such rule, or it has no such settings.
    """
    if name == InputRule.name and not settings:
        return InputRule()
    rules = input_rules()
    found = import_named(name, "input_rule", source) if names_own_code(name) else rules.get(name)
    if not (isinstance(found, type) and issubclass(found, InputRule)):
        raise ValueError(
            f"input_rule must be one of {', '.join(sorted(rules))}, or an InputRule of yours as "
            f"'package.module:Class', got {name!r}"
        )
    try:
        return found(**(settings or {}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"input_rule_settings of {name}: {error}") from error
