"""Recipes: a short YAML file of settings, which flags on the command line override.

How long a recipe trains, and the same recipe made shorter or longer; stages keep their proportions.
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
from latentplan.common.renamed_settings import RENAMED, renamed_settings
from latentplan.common.secrets import from_environment, is_masked, is_secret

EXPERIMENTS = "experiments"
"""Folder beside the recipes, with comparisons of them."""
INSTEAD_OF = {
    "curriculum_steps": "curriculum_epochs",
    "curriculum_epochs": "curriculum_steps",
    "gradient_accumulation_steps": "effective_batch_size",
}
"""Flags that replace another setting of a recipe."""


def parse_recipe(classes: Sequence[type], arguments: list[str]) -> tuple[Any, ...]:
    """Reads settings from `--config RECIPE` and flags, as one instance of each class.

    RECIPE is a YAML file, or the name of a recipe that comes with latentplan, such as `quickstart/cot`. A
    secret may also come from the environment, which goes before the recipe. The settings that are an RL
    objective's own are among the others, and end in `objective_settings`.

    Raises:
        typer.BadParameter: the recipe does not exist or names a setting that does not.
        ValueError: a setting has a value that there is not, or belongs to another objective.
    """
    arguments, recipe = _split_config(arguments)
    arguments = _renamed_flags(arguments)
    flags = _flags(arguments)
    settings = {} if recipe is None else read_recipe(recipe)
    own = _own_classes(classes, {**settings, **flags})
    parser = HfArgumentParser([*classes, *own], allow_abbrev=False)  # type: ignore[list-item]
    parser.error = _refuse  # type: ignore[assignment]  # argparse would print hundreds of lines of usage
    if "help" in flags and own:
        _show_other_objectives(parser, own)
    for action in parser._actions:
        if action.type is dict:
            action.type = _mapping
    if recipe is not None:
        settings = _checked_settings(find_recipe(recipe), settings, [*classes, *own])
        for name in flags.keys() & set(INSTEAD_OF):
            settings.pop(INSTEAD_OF[name], None)
        parser.set_defaults(**settings)
    parser.set_defaults(**from_environment(secret_settings(classes)))
    parsed = parser.parse_args_into_dataclasses(args=arguments, look_for_args_file=False)
    for each in parsed:
        _forget_masked(each)
    return _with_own_settings(parsed) if own else parsed


def known_settings(classes: Sequence[type], settings: Mapping[str, Any]) -> set[str]:
    """Returns the names of all settings of some classes, those of the RL objective in `settings` included."""
    return _names([*classes, *_own_classes(classes, settings)])


def _own_classes(classes: Sequence[type], settings: Mapping[str, Any]) -> list[type]:
    """Returns the dataclass of the chosen RL objective's own settings, where a class has an objective.

    Raises:
        typer.BadParameter: there is no such objective, or a setting belongs to another one.
    """
    config = next((each for each in classes if "objective" in _names([each])), None)
    if config is None:
        return []
    from latentplan.training.objectives import get_objective, refuse_foreign_settings

    objective = str(settings.get("objective", config.objective))  # type: ignore[attr-defined]
    try:
        refuse_foreign_settings(objective, settings)
        return [_titled(get_objective(objective).settings_class, objective)]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _titled(settings: type, objective: str) -> type:
    """Returns the dataclass under a heading of its own in the help."""
    title = f"settings of objective {objective}"
    return type(settings.__name__, (settings,), {"_argument_group_name": title})


def _show_other_objectives(parser: HfArgumentParser, own: Sequence[type]) -> None:
    """Adds the settings of the other RL objectives to the help."""
    from latentplan.training.objectives import objectives

    shown = _names(own)
    for name, objective in objectives().items():
        if not shown & _names([objective.settings_class]):
            parser._add_dataclass_arguments(_titled(objective.settings_class, name))  # type: ignore[arg-type]
            shown |= _names([objective.settings_class])


def _with_own_settings(parsed: tuple[Any, ...]) -> tuple[Any, ...]:
    """Puts an objective's own settings, which come last, where the run's settings hold them."""
    from latentplan.training.objectives import complete_settings

    *rest, own = parsed
    config = next(each for each in rest if hasattr(each, "objective_settings"))
    config.objective_settings = {**vars(own), **(config.objective_settings or {})}
    complete_settings(config)
    return tuple(rest)


def _names(classes: Sequence[type]) -> set[str]:
    return {item.name for each in classes for item in fields(each)}


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the value of each flag, the first one where it has several."""
    found = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            found[name.removeprefix("--").replace("-", "_")] = value if equals else following
    return found


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
    """The names of the settings that hold a secret."""
    return [item.name for each in classes for item in fields(each) if is_secret(item.name)]


def _forget_masked(settings: Any) -> None:
    """Secrets that a recorded command or configuration has masked come from the environment, if at all."""
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
    """A flag that is a mapping, written as YAML or JSON: `{text: 1.0, stop: 0.5}`."""
    value = read_mapping(text)
    if value is None:
        raise ArgumentTypeError(f"must be a mapping such as '{{name: 1.0}}', got {text!r}")
    return value


def _refuse(message: str) -> NoReturn:
    raise typer.BadParameter(message)


def find_recipe(name: str) -> Path:
    """The file of a recipe, by path or by the name of one that comes with latentplan."""
    if Path(name).is_file():
        return Path(name)
    packaged = Path(str(files("latentplan") / "recipes")) / f"{name.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    raise typer.BadParameter(
        f"there is no recipe {name!r}: neither a file nor one of {', '.join(recipe_names())}"
    )


def recipe_names() -> list[str]:
    """The recipes that come with latentplan."""
    folder = Path(str(files("latentplan") / "recipes"))
    names = (str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith(f"{EXPERIMENTS}/"))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings that a recipe names. Raises typer.BadParameter if there is none, or it is no mapping."""
    path = find_recipe(name)
    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"{path} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise typer.BadParameter(f"{path} must hold `setting: value` lines")
    try:
        return renamed_settings(settings, where=str(path))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def with_settings(settings: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """The settings with some changed; those that a changed one replaces are left out."""
    replaced = {INSTEAD_OF[name] for name in changed if name in INSTEAD_OF}
    return {**{name: value for name, value in settings.items() if name not in replaced}, **changed}


def trainer_of(settings: dict[str, Any]) -> tuple[str, tuple[type, ...]]:
    """Returns the command that trains a recipe, and its classes of settings: the first that knows them all.

    Raises:
        typer.BadParameter: none does; names the settings that are wrong.
    """
    from latentplan.problems.training_set import DataArguments
    from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig

    unknown: list[list[str]] = []
    for command, config in (("sft", SFTConfig), ("grpo", GRPOConfig)):
        classes = (ModelArguments, DataArguments, config)
        unknown.append(sorted(set(settings) - known_settings(classes, settings)))
        if not unknown[-1]:
            return command, classes
    fewest = min(len(names) for names in unknown)
    wrong = ", ".join(next(names for names in unknown if len(names) == fewest))
    raise typer.BadParameter(f"no command that trains has all of these settings: {wrong}")


def _checked_settings(path: Path, settings: Mapping[str, Any], classes: Sequence[type]) -> dict[str, Any]:
    """Returns the settings of a recipe, single values as lists where there can be several."""
    known = {item.name: str(item.type) for each in classes for item in fields(each)}
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise typer.BadParameter(f"{path}: there is no setting called {', '.join(unknown)}")
    return {
        name: [value] if known[name].startswith("list") and not isinstance(value, list | None) else value
        for name, value in settings.items()
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
    """Optimisation steps of a recipe; None where it counts epochs or says nothing."""
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
    """What changes in a recipe when it takes `scale` as many optimisation steps.

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
    """Whole numbers of the proportions of `lengths`, each at least 1, that add up to `total`.

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
