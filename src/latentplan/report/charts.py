"""The figures of the report: what is drawn, in which order, and its description in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from latentplan.common.text_table import is_number, percent, short
from latentplan.report.run_reader import Run
from latentplan.report.svg import Axis, Band, Point, Series, line_chart, marker, tag
from latentplan.report.wording import metric_title

_OVERALL = ("loss",)
_REWARDS = ("reward",)
_UPKEEP = ("learning_rate", "grad_norm")
_HEALTH = (
    "frac_reward_zero_std",
    "reward_std",
    "entropy",
    "answers/log_likelihood",
    "kl",
    "clip_ratio/region_mean",
    "completions/mean_length",
    "latents/mean_length",
    "latents/sigma",
    "latents/spread",
    "eval_latents/drift",
)
_SIGNAL = {
    "Where the rewards of a question's samples differ from": "eval_variance/",
    "Signal in the gradient: agreement of two halves of a batch": "eval_agreement/",
}
_VALIDATION = ("eval_loss", "eval_accuracy", "eval_coherence", "eval_reconstruction", "eval_tokens")
_VALIDATION_SHARES = ("eval_accuracy", "eval_coherence", "eval_reconstruction")
_SHARES = Axis(limits=(0.0, 1.0), ticks=(0, 0.25, 0.5, 0.75, 1), write=lambda value: f"{100 * value:.0f}%")


@dataclass(frozen=True)
class Figure:
    """A chart and the line of text above it."""

    title: str
    svg: Markup
    run: Run | None = None


def interval_mark(run: Run) -> Markup:
    """Draws accuracy and its interval on a scale from 0 to 100%, for a cell of a table."""
    estimate, low, high = (run.measured("accuracy", name) for name in ("estimate", "low", "high"))
    if not is_number(estimate):
        return Markup("")
    left, width = 6, 188
    parts = [
        tag("line", x1=left + tick * width, y1=2, x2=left + tick * width, y2=22, class_="grid")
        for tick in (0, 0.25, 0.5, 0.75, 1)
    ]
    if is_number(low) and is_number(high):
        ends = {"x1": round(left + low * width, 1), "x2": round(left + high * width, 1)}
        parts.append(tag("line", y1=12, y2=12, class_=f"whisker slot-{run.slot % 8}", **ends))
    parts.append(marker(run.slot, left + estimate * width, 12))
    return tag("svg", *parts, class_="interval", viewBox="0 0 200 24", aria_hidden="true")


def swatch(run: Run) -> Markup:
    """Returns the marker of a run, to stand before its title."""
    return tag("svg", marker(run.slot, 6, 6), class_="swatch", viewBox="0 0 12 12", aria_hidden="true")


def by_steps(runs: Sequence[Run], measure: str, title: str) -> Figure | None:
    """Returns a share by the number of steps that a problem needs; None if no run has it."""
    found = [(run, _steps(run, measure)) for run in runs]
    lines = [Series(run.title, run.slot, points, marked=True) for run, points in found if points]
    if not lines:
        return None
    counts = sorted({x for line in lines for x, _ in line.points})
    x = Axis("steps in the labelled chain", (counts[0] - 0.3, counts[-1] + 0.3), write=short, ticks=counts)
    told = "; ".join(f"{line.label}: {_listed(line.points)}" for line in lines)
    return Figure(title, line_chart(lines, x, _SHARES, alt=f"{title} by number of steps. {told}."))


def _steps(run: Run, measure: str) -> list[Point]:
    groups = run.measured("by_steps") or {}
    found = [(int(steps), group.get(measure)) for steps, group in groups.items() if str(steps).isdigit()]
    return sorted((float(steps), value) for steps, value in found if is_number(value))


def _listed(points: Sequence[Point]) -> str:
    return ", ".join(f"{x:.0f} steps {percent(y)}" for x, y in points)


def learning_curves(runs: Sequence[Run]) -> list[Figure]:
    """Returns one chart per named loss of each run; its total only where it has no parts."""
    return [figure for run in runs for figure in _losses(run)]


def _losses(run: Run) -> list[Figure]:
    named = sorted({key for row in run.metrics for key in row if key.startswith("loss/")}, key=_loss_order)
    figures = (_curve([run], key, bands=stages(run), log=True) for key in named or _OVERALL)
    return [figure for figure in figures if figure]


def upkeep_curves(runs: Sequence[Run]) -> list[Figure]:
    """Draws learning rate and gradient norm of each run."""
    figures = (_curve([run], key, bands=stages(run)) for run in runs for key in _UPKEEP)
    return [figure for figure in figures if figure]


def _loss_order(key: str) -> tuple[int, str]:
    known = ("loss/text", "loss/step_decoder", "loss/stop", "loss/kl")
    return (known.index(key) if key in known else len(known), key)


def stages(run: Run) -> list[Band]:
    """Returns the stages of the curriculum, each up to where the next begins; none if there is only one."""
    logged = run.series("stage")
    starts = [index for index, (_, stage) in enumerate(logged) if not index or stage != logged[index - 1][1]]
    ends = [*starts[1:], len(logged) - 1][: len(starts)]
    bands = [
        Band(f"{logged[start][1]:.0f}", logged[start][0], logged[end][0])
        for start, end in zip(starts, ends, strict=True)
    ]
    return bands if len(bands) > 1 else []


def reward_curves(runs: Sequence[Run]) -> list[Figure]:
    """Returns the reward and each of its parts, over the steps of RL."""
    parts = sorted({key for run in runs for row in run.metrics for key in row if _is_reward_part(key)})
    figures = (_curve(runs, key, smooth=True) for key in (*_REWARDS, *parts))
    return [figure for figure in figures if figure]


def health_curves(runs: Sequence[Run]) -> list[Figure]:
    """Draws what tells whether RL is still healthy: contrast within groups, entropy, clipping, lengths,
    noise.
    """
    figures = (_curve(runs, key, smooth=True) for key in _HEALTH)
    return [figure for figure in figures if figure]


def signal_curves(runs: Sequence[Run]) -> list[Figure]:
    """Draws for each run what its rewards depend on, and how much of its gradient is signal, part by part."""
    return [figure for run in runs for title in _SIGNAL if (figure := _parts(run, title, _SIGNAL[title]))]


def _parts(run: Run, title: str, prefix: str) -> Figure | None:
    """Returns all metrics of a run that begin alike, a line each."""
    keys = dict.fromkeys(key for row in run.metrics for key in row if key.startswith(prefix))
    named = [(key.removeprefix(prefix).replace("_", " "), run.series(key)) for key in keys]
    lines = [Series(name, slot, points, marked=True) for slot, (name, points) in enumerate(named) if points]
    if not lines:
        return None
    across = Axis("step", limits=(0, max(x for line in lines for x, _ in line.points)))
    told = "; ".join(f"{line.label}: {_ends(line.points)}" for line in lines)
    return Figure(title, line_chart(lines, across, Axis(), alt=f"{title}. {told}."), run)


def validation_curves(runs: Sequence[Run]) -> list[Figure]:
    """Draws what was measured on validation problems while the runs trained."""
    figures = (_curve(runs, key) for key in _VALIDATION)
    return [figure for figure in figures if figure]


def _is_reward_part(key: str) -> bool:
    return key.startswith("rewards/") and key.endswith("/mean")


def _curve(
    runs: Sequence[Run], key: str, *, bands: Sequence[Band] = (), log: bool = False, smooth: bool = False
) -> Figure | None:
    found = [(run, run.series(key)) for run in runs]
    lines = [Series(run.title, run.slot, points, smooth) for run, points in found if points]
    if not lines:
        return None
    title = metric_title(key)
    every = [y for line in lines for _, y in line.points]
    wide = log and min(every) > 0 and max(every) / min(every) > 30
    told = "; ".join(f"{line.label}: {_ends(line.points)}" for line in lines)
    boundaries = f" Stages begin at steps {', '.join(short(band.start) for band in bands)}." if bands else ""
    up = Axis(limits=_share_limits(every)) if _is_share(key, every) else Axis(log=wide)
    across = Axis("step", limits=(0, max(x for line in lines for x, _ in line.points)))
    svg = line_chart(lines, across, up, alt=f"{title}. {told}.{boundaries}", bands=bands)
    return Figure(title + (" (log scale)" if wide else ""), svg, runs[0] if len(runs) == 1 else None)


def _is_share(key: str, values: Sequence[float]) -> bool:
    is_share = key.startswith("frac_") or _is_reward_part(key) or key in _VALIDATION_SHARES
    return is_share and min(values) >= 0 and max(values) <= 1


def _share_limits(shares: Sequence[float]) -> tuple[float, float]:
    """Returns at least 20 points of the scale from 0 to 1, so that a change of one point looks small."""
    low, high = min(shares), max(shares)
    span = min(1.0, max(0.2, 1.12 * (high - low)))
    start = min(max(0.0, (low + high - span) / 2), 1.0 - span)
    return start, start + span


def _ends(points: Sequence[Point]) -> str:
    (first, start), (last, end) = points[0], points[-1]
    return f"{short(start)} at step {short(first)}, {short(end)} at step {short(last)}"
