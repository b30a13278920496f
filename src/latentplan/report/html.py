"""The page: everything that was read and drawn, put into the template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from latentplan.report import charts, formats, words
from latentplan.report.examples import example_groups
from latentplan.report.pictures.embed import picture_groups
from latentplan.report.runs import Run, benchmarks_of, is_number
from latentplan.report.setup import command_of, common, own_settings, resolved, shared_settings, versions


def render(runs: Sequence[Run], *, seconds: float | None, title: str, command: str) -> str:
    """The report as one HTML document.

    Args:
        runs: as read by `load_runs`.
        seconds: wall time of the whole job.
        title: of the page.
        command: that makes all of it again.
    """
    pictures = picture_groups(runs)  # first, as what cannot be read becomes a note
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            command=command,
            seconds=seconds,
            runs=runs,
            verdict=words.verdict(runs),
            cautions=words.cautions(runs),
            notes=[note for run in runs for note in run.notes],
            facts=_facts(runs, seconds),
            groups=example_groups(runs),
            benchmarks=benchmarks_of(runs),
            picture_groups=pictures,
            **_figures(runs),
        )
    )


def _figures(runs: Sequence[Run]) -> dict[str, Any]:
    supervised = [run for run in runs if not run.is_rl]
    rl = [run for run in runs if run.is_rl]
    step_figures = (
        charts.by_steps(runs, "accuracy", "Accuracy"),
        charts.by_steps(runs, "coherence", "Coherence of the plans"),
    )
    return {
        "step_figures": [figure for figure in step_figures if figure],
        "step_counts": _step_counts(runs),
        "curves": charts.learning_curves(supervised),
        "validation_figures": charts.validation_curves(runs),
        "upkeep": charts.upkeep_curves(runs),
        "rl": rl,
        "reward_figures": charts.reward_curves(rl),
        "health_figures": [*charts.health_curves(rl), *charts.signal_curves(rl)],
    }


def _step_counts(runs: Sequence[Run]) -> list[tuple[str, Any]]:
    """(number of steps, problems) over all runs."""
    found = {
        steps: group.get("num_problems")
        for run in runs
        for steps, group in (run.measured("by_steps") or {}).items()
        if str(steps).isdigit()
    }
    return sorted(found.items(), key=lambda item: int(item[0]))


def _facts(runs: Sequence[Run], seconds: float | None) -> list[str]:
    """The line below the title: which problems, when, on what, how long."""
    asked = {(run.measured("benchmark"), run.measured("num_problems")) for run in runs if run.greedy}
    created = sorted(text for run in runs if isinstance(text := run.record.get("created"), str))
    facts = [f"{formats.count(number)} problems of {name}" for name, number in sorted(asked, key=str)]
    facts += [formats.when(created[0])] if created else []
    facts += common(runs, "device")
    return facts + ([f"{formats.duration(seconds)} in all"] if is_number(seconds) else [])


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("latentplan.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=formats.percent, decimal=formats.decimal, count=formats.count, duration=formats.duration
    )
    environment.globals.update(
        interval_mark=charts.interval_mark,
        swatch=charts.swatch,
        shared_settings=shared_settings,
        own_settings=own_settings,
        resolved=resolved,
        command_of=command_of,
        versions=versions,
        common=common,
        is_number=is_number,
        absent=Markup(formats.ABSENT),
    )
    return environment
