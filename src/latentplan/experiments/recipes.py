"""Recipes: a short YAML file of settings, which flags on the command line override.

A recipe can also be made shorter or longer; the stages of its curriculum keep their proportions.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NoReturn

import typer
import yaml
from transformers import HfArgumentParser

from latentplan.common.files import read_mapping
from latentplan.common.plugin_settings import Plugin, kinds_of, owner_of, plugins_of
from latentplan.common.renamed_settings import RENAMED, renamed_settings
from latentplan.common.secrets import from_environment, is_masked, is_secret

EXPERIMENTS = "experiments"
"""Folder among the recipes, with comparisons of them."""
INSTEAD_OF = {
    "curriculum_steps": "curriculum_epochs",
    "curriculum_epochs": "curriculum_steps",
    "gradient_accumulation_steps": "effective_batch_size",
}
"""Flags that replace another setting of a recipe."""


def parse_recipe(classes: Sequence[type], arguments: list[str]) -> tuple[Any, ...]:
    """Reads settings from `--config RECIPE` and flags, as one instance of each class.

    RECIPE is a YAML file, or the name of a recipe that comes with latentplan, such as `quickstart/cot`. A
    secret may also come from the environment, which goes before the recipe. The own settings of the plug-ins
    that are chosen, such as the method's, are read by their names and kept as one mapping, `method_settings`.

    Raises:
        typer.BadParameter: the recipe does not exist, or a setting does not.
        ValueError: a plug-in or a flag does not exist, or a value is wrong.
    """
    arguments, recipe = _split_config(arguments)
    arguments = _renamed_flags(arguments)
    flags, settings = _flags(arguments), {} if recipe is None else read_recipe(recipe)
    plugins = plugins_of(classes, {**settings, **flags})
    foreign = [found for name in flags if (found := _foreign(name, classes, plugins))]
    if foreign:
        raise typer.BadParameter("; ".join(foreign))
    if recipe is not None:
        _check_names(find_recipe(recipe), settings, classes, plugins)
    for name in flags.keys() & set(INSTEAD_OF):
        settings.pop(INSTEAD_OF[name], None)
    own = [plugin.settings for plugin in plugins]
    parser = _parser(classes, plugins, "--help" in arguments)
    parser.set_defaults(**_in_lists(settings, [*classes, *own]))
    for plugin in plugins:
        parser.set_defaults(**_own_defaults(plugin, settings, flags))
    parser.set_defaults(**from_environment(secret_settings([*classes, *own])))
    parsed = parser.parse_args_into_dataclasses(args=arguments, look_for_args_file=False)
    for each in parsed:
        _forget_masked(each)
    for plugin, values in zip(plugins, parsed[len(classes) :], strict=True):
        if plugin.names:
            holder = next(each for each in parsed if hasattr(each, plugin.stored_in))
            setattr(holder, plugin.stored_in, plugin.read(vars(values)))
    return parsed[: len(classes)]


def _parser(classes: Sequence[type], plugins: Sequence[Plugin], all_plugins: bool) -> HfArgumentParser:
    """Makes the parser of the classes and the plug-ins' own settings; for the help text, of all plug-ins'."""
    shown = [*plugins]
    if all_plugins:
        taken = setting_names(classes, plugins)
        for plugin in (each for kind in kinds_of(classes) for each in kind.all_shipped()):
            if not taken & set(plugin.names):
                shown.append(plugin)
                taken |= set(plugin.names)
    wanted: list[Any] = [*classes, *(each.settings for each in shown)]
    parser = HfArgumentParser(wanted, allow_abbrev=False)
    parser.error = _refuse  # type: ignore[assignment]  # argparse would print hundreds of lines of usage
    owners = {name: plugin.owner for plugin in shown for name in plugin.names}
    for action in parser._actions:
        if action.type is dict:
            action.type = _mapping
        if action.dest in owners:
            action.help = f"{owners[action.dest]}: {action.help}"
    return parser


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the value of each flag, the last one where it is repeated."""
    found = {}
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--"):
            found[name.replace("-", "_")] = value if equals else following
    return found


def _own_defaults(plugin: Plugin, settings: Mapping[str, Any], flags: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a recipe says of a plug-in's own settings, by their names or as one mapping.

    Raises:
        ValueError: there is no such setting, or a value is wrong.
    """
    if not plugin.names:
        return {}
    mapping = settings.get(plugin.stored_in) or {}
    named = {
        name: settings[name]
        for name in plugin.names
        if name in settings and (settings[name] is not None or plugin.admits_none(name))
    }
    flag = _mapping(flags[plugin.stored_in]) if plugin.stored_in in flags else {}
    given = _in_lists({**mapping, **named, **flag}, [plugin.settings], keep=True)
    plugin.read(given)
    return given


def _renamed_flags(arguments: Sequence[str]) -> list[str]:
    """Replaces old names of flags, with a notice."""
    renamed: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        name, equals, value = argument.partition("=")
        old = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or old not in RENAMED:
            renamed.append(argument)
            continue
        value = value if equals or not queue else queue.pop(0)
        for new, chosen in renamed_settings({old: value}, where=name).items():
            renamed += [f"--{new}", str(chosen)]
    return renamed


def secret_settings(classes: Sequence[type]) -> list[str]:
    """Returns the names of the settings that hold a secret."""
    return [item.name for each in classes for item in fields(each) if is_secret(item.name)]


def _forget_masked(settings: Any) -> None:
    """Takes secrets that a recorded command or configuration has masked from the environment, if at all."""
    names = secret_settings([type(settings)])
    for name in names:
        if is_masked(getattr(settings, name)):
            setattr(settings, name, from_environment(names).get(name))


def _split_config(arguments: list[str]) -> tuple[list[str], str | None]:
    rest, recipe = [], None
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--config":
            if not queue:
                raise typer.BadParameter("--config needs the name or path of a recipe")
            recipe = queue.pop(0)
        elif argument.startswith("--config="):
            recipe = argument.removeprefix("--config=")
        else:
            rest.append(argument)
    return rest, recipe


def _mapping(text: str) -> dict[str, Any]:
    """Returns a flag that is a mapping, written as YAML or JSON: `{text: 1.0, stop: 0.5}`."""
    value = read_mapping(text)
    if value is None:
        raise ArgumentTypeError(f"must be a mapping such as '{{name: 1.0}}', got {text!r}")
    return value


def _refuse(message: str) -> NoReturn:
    raise typer.BadParameter(message)


def find_recipe(name: str) -> Path:
    """Returns the file of a recipe, by path or by the name of one that comes with latentplan."""
    if Path(name).is_file():
        return Path(name)
    packaged = Path(str(files("latentplan") / "recipes")) / f"{name.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    raise typer.BadParameter(
        f"there is no recipe {name!r}: neither a file nor one of {', '.join(recipe_names())}"
    )


def recipe_names() -> list[str]:
    """Returns the recipes that come with latentplan."""
    folder = Path(str(files("latentplan") / "recipes"))
    names = (str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith(f"{EXPERIMENTS}/"))


def read_recipe(name: str) -> dict[str, Any]:
    """Returns the settings in a recipe. Raises typer.BadParameter if there is none, or it is no mapping."""
    path = find_recipe(name)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"{path} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise typer.BadParameter(f"{path} must hold `setting: value` lines")
    try:
        return renamed_settings(settings, where=str(path))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def with_settings(settings: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with some changed; those that a changed one replaces are left out."""
    replaced = {INSTEAD_OF[name] for name in changed if name in INSTEAD_OF}
    return {**{name: value for name, value in settings.items() if name not in replaced}, **changed}


def setting_names(classes: Sequence[type], plugins: Sequence[Plugin]) -> set[str]:
    """Returns the names of all settings of the classes and of the plug-ins that a run has chosen."""
    names = {item.name for each in classes for item in fields(each)}
    return names.union(*(plugin.names for plugin in plugins))


def _foreign(name: str, classes: Sequence[type], plugins: Sequence[Plugin]) -> str | None:
    """Says which plug-in that this run does not have owns a setting; None where none does."""
    if name in setting_names(classes, plugins):
        return None
    return owner_of(name, kinds_of(classes), plugins)


def _unknown(settings: Mapping[str, Any], classes: Sequence[type], plugins: Sequence[Plugin]) -> list[str]:
    """Lists the names that are no settings of a run; null ones of other plug-ins do no harm."""
    known = setting_names(classes, plugins)
    return sorted(
        name
        for name, value in settings.items()
        if name not in known and (value is not None or _foreign(name, classes, plugins) is None)
    )


def _check_names(
    path: Path, settings: dict[str, Any], classes: Sequence[type], plugins: Sequence[Plugin]
) -> None:
    """Raises typer.BadParameter where a recipe names a setting that this run does not have."""
    unknown = _unknown(settings, classes, plugins)
    foreign = [found for name in unknown if (found := _foreign(name, classes, plugins))]
    if unknown:
        raise typer.BadParameter(
            f"{path}: {'; '.join(foreign) or 'there is no setting called ' + ', '.join(unknown)}"
        )


def trainer_of(settings: dict[str, Any]) -> tuple[str, tuple[type, ...]]:
    """Returns the command that trains a recipe, and its classes of settings: the first that knows them all.

    Raises:
        typer.BadParameter: none does, or a plug-in does not exist; names the settings that are wrong.
    """
    from latentplan.problems.training_set import DataArguments
    from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig

    wrong: list[list[str]] = []
    for command, config in (("sft", SFTConfig), ("grpo", GRPOConfig)):
        classes = (ModelArguments, DataArguments, config)
        try:
            plugins = plugins_of(classes, settings)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        unknown = _unknown(settings, classes, plugins)
        if not unknown:
            return command, classes
        wrong.append([_foreign(name, classes, plugins) or name for name in unknown])
    fewest = min(wrong, key=len)
    raise typer.BadParameter(f"no command that trains has all of these settings: {', '.join(fewest)}")


def closest_classes(arguments: list[str], candidates: Sequence[tuple[type, ...]]) -> tuple[type, ...]:
    """Returns the classes that have most of the settings in `--config RECIPE` and flags; else the first.

    Raises:
        typer.BadParameter: the recipe does not exist.
    """
    flags, recipe = _split_config(arguments)
    named = {**({} if recipe is None else read_recipe(recipe)), **_flags(flags)}
    return max(candidates, key=lambda classes: len(setting_names(classes, ()) & set(named)))


def _in_lists(settings: Mapping[str, Any], classes: Sequence[type], keep: bool = False) -> dict[str, Any]:
    """Returns the settings that the classes have, with single values of lists as lists of one.

    Args:
        settings: by name.
        classes: that have them.
        keep: whether settings that no class has stay.
    """
    types = {item.name: str(item.type) for each in classes for item in fields(each)}
    return {
        name: [value]
        if types.get(name, "").startswith("list") and not isinstance(value, list | None)
        else value
        for name, value in settings.items()
        if keep or name in types
    }


def quiet_libraries() -> None:
    """Leaves the terminal to latentplan's own progress and messages."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


FEWEST_PROBLEMS = 2000
"""Training problems that are made even for the shortest look, where the recipe has as many."""


def count_steps(settings: Mapping[str, Any]) -> int | None:
    """Counts the optimisation steps of a recipe; None where it counts epochs or says nothing."""
    if "max_steps" in settings:
        return int(settings["max_steps"])
    steps = settings.get("curriculum_steps")
    if steps is None:
        return None
    if isinstance(steps, list) and len(steps) > 1:
        return sum(steps)
    stages = settings.get("curriculum_stages") or [0]
    return (steps[0] if isinstance(steps, list) else steps) * len(stages)


def scaled_settings(settings: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Returns what changes in a recipe when it takes `scale` as many optimisation steps.

    Below 1 there are also fewer generated training problems.
    """
    if scale == 1.0:
        return {}
    changed: dict[str, Any] = {"logging_steps": 1}
    if scale < 1 and settings.get("dataset_size"):
        size = settings["dataset_size"]
        changed["dataset_size"] = min(size, max(FEWEST_PROBLEMS, round(size * scale)))
    if "max_steps" in settings:
        steps = max(1, round(settings["max_steps"] * scale))
        return {**changed, "max_steps": steps, "save_steps": steps}
    if "curriculum_epochs" in settings:
        epochs = settings["curriculum_epochs"]
        epochs = epochs if isinstance(epochs, list) else [epochs]
        return {**changed, "curriculum_epochs": [passes * scale for passes in epochs]}
    lengths = settings.get("curriculum_steps", 1000)
    lengths = lengths if isinstance(lengths, list) else [lengths]
    return {**changed, "curriculum_steps": [max(1, round(length * scale)) for length in lengths]}


def proportional(lengths: Sequence[float], total: int) -> list[int]:
    """Returns whole numbers of the proportions of `lengths`, each at least 1, that add up to `total`.

    Raises:
        ValueError: there are more stages than `total`.
    """
    if total < len(lengths):
        raise ValueError(f"{total} steps are too few for {len(lengths)} stages")
    whole = sum(lengths)
    ends = [round(total * reached / whole) for reached in accumulate(lengths, initial=0.0)]
    shares = [max(1, after - before) for before, after in pairwise(ends)]
    while sum(shares) > total:
        shares[shares.index(max(shares))] -= 1
    return shares
