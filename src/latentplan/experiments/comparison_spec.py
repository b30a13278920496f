"""The entries of a comparison: recipes, their changes, and the recipes that they start from.

An experiment is a comparison as a YAML file, one of those that come with latentplan or the user's own:

title: what the table is called
says: what a paper says about it
benchmarks: [minigsm:quickstart]
recipes:
  - quickstart/cot
  - {recipe: quickstart/coconut, name: coconut_k3, settings: {max_latent_steps: 3}}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer
import yaml

from latentplan.common.plugin_settings import plugins_of
from latentplan.common.renamed_settings import renamed_settings
from latentplan.common.secrets import moved_to_environment
from latentplan.experiments.recipes import (
    EXPERIMENTS,
    read_recipe,
    recipe_names,
    setting_names,
    trainer_of,
    with_settings,
)
from latentplan.report.wording import run_title

COMPARISON = "compare.json"
"""The plan of a comparison, in its folder."""


@dataclass(frozen=True)
class Item:
    """What a user asks for: a recipe, by name or file, and what is changed in it.

    Attributes:
        recipe: its name or file.
        name: of the row and its runs; absent: the last part of the recipe's name.
        title: what the table calls it; absent: made from the name.
        settings: the changes.
    """

    recipe: str
    name: str | None = None
    title: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Entry:
    """One recipe of a comparison.

    Attributes:
        name: of its runs.
        title: what the table calls it.
        recipe: name or file of the recipe.
        settings: the recipe's, with all changes; without secrets, which the environment holds.
        changed: the changes of its own.
        listed: whether it is a row of the table, or only what another starts from.
        start: the entry whose model it starts from; None where that is no run of the comparison.
    """

    name: str
    title: str
    recipe: str
    settings: dict[str, Any]
    changed: dict[str, Any] = field(default_factory=dict)
    listed: bool = True
    start: str | None = None

    @property
    def command(self) -> str:
        """The command that trains it."""
        return trainer_of(self.settings)[0]


def read_entries(items: Sequence[Item], common: Mapping[str, Any]) -> list[Entry]:
    """Returns the entries of a comparison, each after the one that it starts from.

    Args:
        items: the rows.
        common: settings of all, where they have them.

    Raises:
        typer.BadParameter: a recipe or a setting does not exist, two rows have the same name, or a recipe
            starts from a run that no recipe makes.
    """
    common = moved_to_environment(_renamed(common, "settings"))
    names = row_names(items)
    entries = {name: _entry(name, item, common) for name, item in zip(names, items, strict=True)}
    _check_common(common, list(entries.values()))
    queue = list(entries.values())
    while queue:
        entry = queue.pop(0)
        start = _start_of(entry, entries, common)
        if start is not None:
            entry.start = start.name
            if start.name not in entries:
                entries[start.name] = start
                queue.append(start)
    return _starts_first(entries)


def row_names(items: Sequence[Item]) -> list[str]:
    """Returns the name of each row: as given, or of the recipe, with its folder where two are called alike.

    Raises:
        typer.BadParameter: two rows have the same name all the same.
    """
    short = [item.name or Path(item.recipe).stem for item in items]
    counts = Counter(short)
    names = [
        name if counts[name] == 1 else "-".join(Path(item.recipe).with_suffix("").parts[-2:])
        for name, item in zip(short, items, strict=True)
    ]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise typer.BadParameter(f"two rows are called {twice[0]!r}: name a recipe once, or give rows names")
    return names


def _entry(name: str, item: Item, common: Mapping[str, Any], listed: bool = True) -> Entry:
    plain = read_recipe(item.recipe)
    changed = moved_to_environment(_renamed(item.settings, item.name or item.recipe))
    _, classes = trainer_of(plain)
    known = setting_names(classes, plugins_of(classes, {**plain, **common, **changed}))
    shared = {key: value for key, value in common.items() if key in known}
    settings = moved_to_environment(with_settings(with_settings(plain, shared), changed))
    trainer_of(settings)
    return Entry(name, item.title or run_title(name), item.recipe, settings, changed, listed)


def _renamed(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return renamed_settings(settings, where)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _check_common(common: Mapping[str, Any], entries: Sequence[Entry]) -> None:
    unused = [name for name in common if not any(name in entry.settings for entry in entries)]
    if unused:
        raise typer.BadParameter(f"none of the recipes has a setting called {', '.join(unused)}")


def _start_of(entry: Entry, entries: Mapping[str, Entry], common: Mapping[str, Any]) -> Entry | None:
    """Returns the entry that another starts from, a new one where it is not in the comparison yet."""
    start = entry.settings.get("model_name_or_path")
    if start is None:
        return None
    if start in entries:
        return entries[start]
    for other in entries.values():
        if not other.changed and _same_folder(read_recipe(other.recipe).get("output_dir"), start):
            return other
    recipe = str(start).removeprefix("runs/")
    if str(start).startswith("runs/") and recipe in recipe_names():
        name = Path(recipe).name
        return _entry(name if name not in entries else recipe.replace("/", "-"), Item(recipe), common, False)
    if _is_run(str(start)):
        raise typer.BadParameter(
            f"{entry.recipe} starts from {start}, which is the output_dir of none of the recipes here or of "
            "those that come with latentplan: name the recipe that makes it too, or set model_name_or_path "
            "to a model"
        )
    return None


def _same_folder(one: Any, other: Any) -> bool:
    return one is not None and Path(str(one)) == Path(str(other))


def _is_run(start: str) -> bool:
    """Returns whether a name looks like a run of ours, and not like a model of the hub or on disk."""
    if start.startswith("runs/"):
        return True
    looks_local = start.startswith((".", "/", "~")) or start.count("/") > 1
    return looks_local and not Path(start).exists()


def _starts_first(entries: Mapping[str, Entry]) -> list[Entry]:
    """Raises typer.BadParameter where entries start from each other in a circle."""
    ordered: dict[str, Entry] = {}

    def add(entry: Entry, above: tuple[str, ...]) -> None:
        if entry.name in above:
            raise typer.BadParameter(f"{' starts from '.join([*above, entry.name])}: that is a circle")
        if entry.start is not None:
            add(entries[entry.start], (*above, entry.name))
        ordered.setdefault(entry.name, entry)

    for entry in entries.values():
        add(entry, ())
    return list(ordered.values())


def write_recipe(file: Path, settings: Mapping[str, Any], recipe: str) -> Path:
    """Writes the settings as a recipe of their own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    file.write_text(f"# {recipe}, as this comparison trains it.\n{text}", encoding="utf-8")
    return file


@dataclass(frozen=True)
class Experiment:
    """A comparison as a file describes it; options of the command line come before what it says.

    Attributes:
        title: of the table.
        says: what the papers report, or leave open.
        recipes: the rows.
        settings: of all rows, and of what they start from.
        benchmarks, num_problems, max_new_tokens, num_generations, seeds, reference: as the options.
    """

    title: str = "Comparison"
    says: str = ""
    recipes: list[Item] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    benchmarks: list[str] = field(default_factory=list)
    num_problems: int | None = None
    max_new_tokens: int | None = None
    num_generations: int | None = None
    seeds: int | None = None
    reference: str | None = None


def read_experiment(name: str) -> Experiment:
    """Returns an experiment by the name of one that comes with latentplan, or from a file.

    Raises:
        typer.BadParameter: there is none, or it says something that an experiment cannot.
    """
    path = Path(name) if Path(name).is_file() else _folder() / f"{name}.yaml"
    if not path.is_file():
        raise typer.BadParameter(
            f"there is no experiment {name!r}: neither a file nor one of {', '.join(experiment_names())}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Experiment(**{**content, "recipes": [_item(row) for row in content["recipes"]]})
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        known = ", ".join(item.name for item in fields(Experiment))
        raise typer.BadParameter(f"{path} is no experiment ({error}); it may say {known}") from error


def experiment_names() -> list[str]:
    """Returns the experiments that come with latentplan."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    return Path(str(files("latentplan") / "recipes" / EXPERIMENTS))


def _item(row: str | Mapping[str, Any]) -> Item:
    return Item(row) if isinstance(row, str) else Item(**row)
