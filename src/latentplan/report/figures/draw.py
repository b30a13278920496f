"""All pictures of some models: drawn, saved with their data as CSV and JSON, and listed in `pictures.json`.

What cannot be drawn, such as plans of a model without a step decoder, is named in the list with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latentplan.common.files import write_atomically
from latentplan.common.text_table import csv_table
from latentplan.evaluation.latent_table import Clustering, LatentTable, clustering
from latentplan.report.figures.curves import (
    draw_rewards,
    draw_sigma,
    draw_stops,
    reward_parts,
    sigma_curve,
    stop_curves,
)
from latentplan.report.figures.latent_maps import (
    LABELS,
    MIN_ROWS,
    PROJECTIONS,
    TITLES,
    Projected,
    draw_latents,
)
from latentplan.report.figures.plan_drawings import draw_plans
from latentplan.report.figures.style import save, styled
from latentplan.report.run_reader import Run


def write_latents(
    file: Path, models: Mapping[str, LatentTable], points: Mapping[str, Sequence[np.ndarray]]
) -> Path:
    """Writes a line for each latent step: its labels, σ, and its position in each projection."""
    axes = [f"{name}_{axis}" for name in points for axis in "xy"]
    head = ["model", "problem", "step", "text", *(name for name in LABELS if name != "step"), "sigma", *axes]
    lines = []
    for model, (title, table) in enumerate(models.items()):
        for index, row in enumerate(table.rows):
            labels = [label(row) for name, label in LABELS.items() if name != "step"]
            at = [f"{value:.4g}" for parts in points.values() for value in parts[model][index]]
            lines.append([title, row.problem, row.step, row.text, *labels, row.sigma, *at])
    return _csv(file, head, lines)


def write_clustering(file: Path, measured: Mapping[str, Mapping[str, Clustering | None]]) -> Path:
    """Writes a line for each model and label."""
    names = [item.name for item in fields(Clustering)]
    lines = [
        [title, label, *(getattr(found, name) for name in names)]
        for title, by_label in measured.items()
        for label, found in by_label.items()
        if found is not None
    ]
    return _csv(file, ["model", "label", *names], lines)


def write_stops(file: Path, models: Mapping[str, LatentTable]) -> Path:
    """Writes a line for each point of the curves."""
    lines = [
        [title, needed, *point]
        for title, table in models.items()
        for needed, curve in stop_curves(table.stops).items()
        for point in curve
    ]
    head = ["model", "labelled_steps", "step", "probability", "quantile_10", "quantile_90", "chains"]
    return _csv(file, head, lines)


def write_sigma(file: Path, models: Mapping[str, LatentTable]) -> Path:
    """Writes a line for each model and step."""
    lines = [[title, *point] for title, table in models.items() for point in sigma_curve(table)]
    return _csv(
        file, ["model", "step", "sigma", "quantile_10", "quantile_90", "spread_of_mean", "chains"], lines
    )


def write_rewards(file: Path, runs: Sequence[Run]) -> Path:
    """Writes a line for each run, metric and logged step."""
    lines = [
        [run.title, metric, step, value]
        for run in runs
        for metric in ("reward", "reward_std", *reward_parts(run))
        for step, value in run.series(metric)
    ]
    return _csv(file, ["model", "metric", "step", "value"], lines)


def write_plans(file: Path, models: Mapping[str, LatentTable]) -> Path:
    """Writes every problem with its answer and plan, by model."""
    rows = {title: [asdict(solved) for solved in table.problems] for title, table in models.items()}
    return write_atomically(file, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")


def _csv(file: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> Path:
    return write_atomically(file, csv_table(head, ([_shown(value) for value in line] for line in lines)))


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


FORMAT_VERSION = 1
FILE = "pictures.json"
MAX_ROWS = 1000
"""Latent steps of a model that are projected and measured."""

OnPicture = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is drawn.

    Attributes:
        models: latent steps by the model's title, in the order of the rows.
        runs: runs of RL, for the rewards.
        projections: names of `PROJECTIONS`.
        first_only: fit a projection on the first model alone.
        seed: of projections, folds and the choice of problems.
        about: what is written into `pictures.json` with the pictures.
    """

    models: Mapping[str, LatentTable]
    runs: Sequence[Run]
    projections: Sequence[str]
    first_only: bool = False
    seed: int = 0
    about: Mapping[str, Any] | None = None


class LeftOut(NamedTuple):
    """A picture that was not drawn."""

    name: str
    reason: str


class _Picture(NamedTuple):
    """A figure with what the report says above it, and the files of its data."""

    name: str
    caption: str
    figure: Any
    data: Sequence[Path]


def check_installed(projections: Sequence[str]) -> None:
    """Raises ImportError, saying what to install, where a package is missing that these pictures need."""
    needed = {"matplotlib": "matplotlib 'latentplan[plot]'", "sklearn": "scikit-learn 'latentplan[plot]'"}
    if "umap" in projections:
        needed["umap"] = "umap-learn umap-learn"
    for module, named in needed.items():
        package, install = named.split()
        try:
            import_module(module)
        except ImportError as error:
            raise ImportError(f"pictures need {package}: pip install {install}") from error


def draw_pictures(
    request: Request, folder: Path, on_picture: OnPicture = lambda name: None
) -> tuple[list[Path], list[LeftOut]]:
    """Writes the pictures (PNG, SVG), their data (CSV, JSON) and `pictures.json` into a folder.

    Returns:
        The PNG files, and what was left out with the reason.

    Raises:
        ImportError: matplotlib, scikit-learn, or umap-learn where it is requested, is missing.
    """
    check_installed(request.projections)
    listed, files, left_out = [], [], []
    with styled():
        for drawn in _pictures(request, folder, on_picture):
            if isinstance(drawn, LeftOut):
                left_out.append(drawn)
                continue
            png, svg = save(drawn.figure, folder, drawn.name)
            files.append(png)
            data = [file.name for file in drawn.data]
            entry = {
                "name": drawn.name,
                "caption": drawn.caption,
                "png": png.name,
                "svg": svg.name,
                "data": data,
            }
            listed.append(entry)
    row = {
        "format_version": FORMAT_VERSION,
        **(request.about or {}),
        "models": list(request.models),
        "pictures": listed,
        "left_out": [gone._asdict() for gone in left_out],
    }
    write_atomically(folder / FILE, json.dumps(row, indent=2, ensure_ascii=False) + "\n")
    return files, left_out


def _pictures(request: Request, folder: Path, on_picture: OnPicture) -> Iterator[_Picture | LeftOut]:
    yield from _latents(request, folder, on_picture)
    for name, draw in (("stops", _stops), ("sigma", _sigma), ("plans", _plans), ("rewards", _rewards)):
        on_picture(name)
        yield draw(request, folder)


def _latents(request: Request, folder: Path, on_picture: OnPicture) -> Iterator[_Picture | LeftOut]:
    small = {title: fewer_rows(table, request.seed) for title, table in request.models.items()}
    reasons = {title: _cannot_project(table) for title, table in small.items()}
    drawable = {title: table for title, table in small.items() if not reasons[title]}
    width = next((table.vectors.shape[1] for table in drawable.values()), 0)
    for title, table in drawable.items():
        if table.vectors.shape[1] != width:
            reasons[title] = (
                f"a step has {table.vectors.shape[1]} numbers, of {next(iter(drawable))} {width}: no plane "
                "holds both, draw it in a call of its own"
            )
    yield from (LeftOut(f"latents of {title}", reason) for title, reason in reasons.items() if reason)
    small = {title: table for title, table in small.items() if not reasons[title]}
    if not small:
        return
    on_picture("probes")
    measured = {title: _measured(table, request.seed) for title, table in small.items()}
    points: dict[str, list[np.ndarray]] = {}
    for name in request.projections:
        on_picture(name)
        points[name] = PROJECTIONS[name](
            [table.vectors for table in small.values()], request.first_only, request.seed
        )
    data = [
        write_latents(folder / "latents.csv", small, points),
        write_clustering(folder / "clustering.csv", measured),
    ]
    for name, parts in points.items():
        models = [
            Projected(title, table, part, measured[title])
            for (title, table), part in zip(small.items(), parts, strict=True)
        ]
        how = _method(name, request.first_only, models)
        yield _Picture(
            f"latents_{name}",
            f"Latent steps in the plane: {how}. {_NUMBERS}",
            draw_latents(models, how),
            data,
        )


_NUMBERS = (
    "The numbers below a panel are measured in the original space: the mean silhouette, and the balanced "
    "accuracy of a linear probe on problems that it was not fitted on, each beside the same with shuffled "
    "labels."
)


def _method(name: str, first_only: bool, models: Sequence[Projected]) -> str:
    """Says how the models were projected, and for PCA how much of their variance is seen."""
    alone = first_only and name != "tsne"
    fitted = models[0].title if alone else "all models together" if len(models) > 1 else "the model"
    told = f"{TITLES[name]}, fitted on {fitted}"
    if name != "pca":
        return told
    seen = models[:1] if alone else models
    every = np.concatenate([model.table.vectors for model in seen])
    share = np.concatenate([model.points for model in seen]).var(axis=0).sum() / every.var(axis=0).sum()
    return f"{told}, {share:.0%} of whose variance is in this plane"


def fewer_rows(table: LatentTable, seed: int) -> LatentTable:
    """Keeps at most 1,000 latent steps, of problems drawn by the seed: the same problems for every model."""
    order = np.random.default_rng(seed).permutation(len(table.problems)).tolist()
    rank = {problem: index for index, problem in enumerate(order)}
    kept = sorted(
        range(len(table.rows)), key=lambda row: (rank[table.rows[row].problem], table.rows[row].step)
    )
    kept = kept[:MAX_ROWS]
    rows = [table.rows[row] for row in kept]
    return replace(table, rows=rows, vectors=table.vectors[kept], means=table.means[kept])


def _cannot_project(table: LatentTable) -> str:
    """Says why there is nothing to see of the latents; empty where there is."""
    if len(table.rows) < MIN_ROWS:
        return f"it used {len(table.rows)} latent steps in all; ask more problems (--num_problems)"
    if not np.isfinite(table.vectors).all():
        return "its latents are not finite"
    if np.ptp(table.vectors, axis=0).max() == 0:
        return "its latents are all the same vector, whatever the question"
    return ""


def _measured(table: LatentTable, seed: int) -> dict[str, Clustering | None]:
    groups = [row.problem for row in table.rows]
    return {
        name: clustering(table.vectors, [label(row) for row in table.rows], groups, seed)
        for name, label in LABELS.items()
    }


def _stops(request: Request, folder: Path) -> _Picture | LeftOut:
    if not any(table.stops for table in request.models.values()):
        return LeftOut("stops", "no model has a stop head that was asked")
    data = write_stops(folder / "stops.csv", request.models)
    caption = (
        "Probability of stopping before each latent step, by the number of labelled steps: means, and 10% to "
        "90% of the chains that were still going. Circles mark where a chain of that length should stop."
    )
    return _Picture("stops", caption, draw_stops(request.models), [data])


def _sigma(request: Request, folder: Path) -> _Picture | LeftOut:
    random = {
        title: table
        for title, table in request.models.items()
        if any(r.sigma is not None for r in table.rows)
    }
    if not random:
        return LeftOut("sigma", "the latents of these models are points, without σ")
    data = write_sigma(folder / "sigma.csv", random)
    caption = (
        "σ of each latent step, the mean over dimensions (median and 10% to 90% of the chains), and how far "
        "μ differs between problems, in units of σ."
    )
    return _Picture("sigma", caption, draw_sigma(random), [data])


def _plans(request: Request, folder: Path) -> _Picture | LeftOut:
    decoded = {title: table for title, table in request.models.items() if table.decoded}
    if not decoded:
        return LeftOut("plans", "no model has a step decoder, so there are no decoded plans")
    data = write_plans(folder / "plans.json", decoded)
    caption = (
        "Decoded plans as graphs, from the numbers of the question (squares) over the steps to the answer. A "
        "dashed frame is a false equation, an unused result or a number from nowhere. The questions were "
        "chosen for what they show, not at random."
    )
    return _Picture("plans", caption, draw_plans(decoded), [data])


def _rewards(request: Request, folder: Path) -> _Picture | LeftOut:
    runs = [run for run in request.runs if reward_parts(run)]
    if not runs:
        return LeftOut("rewards", "no model is in a run of RL that has logged rewards in metrics.jsonl")
    data = write_rewards(folder / "rewards.csv", runs)
    caption = "The reward and its components over training. Thin: as logged; bold: the moving average."
    return _Picture("rewards", caption, draw_rewards(runs), [data])
