"""Experiments: comparisons as YAML files, those that come with latentplan and one's own.

title: what the table is called
says: what a paper says about it
benchmarks: [minigsm:quickstart]
recipes:
  - quickstart/cot
  - {recipe: quickstart/coconut, name: coconut_k3, settings: {max_latent_steps: 3}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer
import yaml

from latentplan.cli.comparison.entries import Item
from latentplan.cli.recipe import EXPERIMENTS


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
    """An experiment by the name of one that comes with latentplan, or from a file.

    Raises:
        typer.BadParameter: there is none, or it says something that an experiment cannot.
    """
    path = Path(name) if Path(name).is_file() else _folder() / f"{name}.yaml"
    if not path.is_file():
        raise typer.BadParameter(
            f"there is no experiment {name!r}: neither a file nor one of {', '.join(experiment_names())}"
        )
    try:
        content = yaml.safe_load(path.read_text())
        return Experiment(**{**content, "recipes": [_item(row) for row in content["recipes"]]})
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        known = ", ".join(item.name for item in fields(Experiment))
        raise typer.BadParameter(f"{path} is no experiment ({error}); it may say {known}") from error


def experiment_names() -> list[str]:
    """The experiments that come with latentplan."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    return Path(str(files("latentplan") / "recipes" / EXPERIMENTS))


def _item(row: str | Mapping[str, Any]) -> Item:
    return Item(row) if isinstance(row, str) else Item(**row)
