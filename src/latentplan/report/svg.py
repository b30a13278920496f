"""Line charts as inline SVG: drawn for the size at which they are shown, coloured by the page's style sheet.

Colours are classes (`slot-0`, `slot-1`, …), so that one figure serves the light, dark and printed page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from latentplan.common.text_table import short

Point = tuple[float, float]

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _TOP_WITH_BANDS, _BOTTOM = 46, 16, 10, 22, 36
_MAX_POINTS = 240


@dataclass(frozen=True)
class Series:
    """One line: its points in order of x, what it is called, and the colour of its run.

    Attributes:
        smooth: draw the values faintly and their moving average over them.
        marked: draw a marker at each point, of a shape of its own for each colour.
    """

    label: str
    slot: int
    points: Sequence[Point]
    smooth: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Band:
    """A named stretch of the x axis."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Axis:
    """How an axis is labelled and what it has to show.

    Attributes:
        title: what is measured, with its unit.
        limits: what it spans; absent: the data.
        log: logarithmic.
        write: a value as text.
        ticks: where to label it; absent: at round numbers.
    """

    title: str = ""
    limits: tuple[float, float] | None = None
    log: bool = False
    write: Callable[[float], str] = short
    ticks: Sequence[float] = field(default=())


def tag(name: str, *content: Any, **attributes: Any) -> Markup:
    """Returns an SVG element; `_` in an attribute's name is `-`, and `class_` is `class`."""
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    written = Markup("").join(
        Markup(' {}="{}"').format(names[key], value) for key, value in attributes.items()
    )
    inner = Markup("").join(escape(part) for part in content)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inner)


def line_chart(series: Sequence[Series], x: Axis, y: Axis, *, alt: str, bands: Sequence[Band] = ()) -> Markup:
    """Returns a chart of some lines over a common x axis, 360 × 210; `alt` says it in words."""
    drawn = [Series(s.label, s.slot, thinned(s.points), s.smooth, s.marked) for s in series]
    every = [point for line in drawn for point in line.points]
    across = _Scale(x, [point[0] for point in every], _LEFT, _WIDTH - _RIGHT)
    top = _TOP_WITH_BANDS if bands else _TOP
    up = _Scale(y, [point[1] for point in every], _HEIGHT - _BOTTOM, top)
    parts = [tag("title", alt), *_bands(bands, across), *_y_axis(up), *_x_axis(across, x.title)]
    parts += [part for line in drawn for part in _line(line, across, up)]
    return tag("svg", *parts, class_="chart", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=alt)


def thinned(points: Sequence[Point]) -> list[Point]:
    """Returns at most 240 points: means of neighbours, so that nothing that stands out for long is lost."""
    size = math.ceil(len(points) / _MAX_POINTS)
    chunks = [points[start : start + size] for start in range(0, len(points), size)] if size > 1 else []
    return [_mean_point(chunk) for chunk in chunks] or list(points)


def moving_average(points: Sequence[Point]) -> list[Point]:
    """Returns each value averaged with its neighbours, an eighth of the series in all, less at the ends."""
    reach = max(1, len(points) // 16)
    return [
        (points[index][0], _mean_point(points[max(0, index - reach) : index + reach + 1])[1])
        for index in range(len(points))
    ]


def round_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Returns multiples of 1, 2, 2.5 or 5 times a power of ten between two values, about as many as
    wanted.
    """
    if high <= low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.85)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def marker(slot: int, x: float, y: float, size: float = 4) -> Markup:
    """Returns a marker whose shape, like its colour, belongs to the run: told apart without colours too."""
    s, side = size * 1.15, size * 1.8
    shapes = (
        lambda: tag("circle", cx=_f(x), cy=_f(y), r=_f(size)),
        lambda: tag("rect", x=_f(x - side / 2), y=_f(y - side / 2), width=_f(side), height=_f(side)),
        lambda: _polygon([(x, y - s), (x + s, y + s * 0.8), (x - s, y + s * 0.8)]),
        lambda: _polygon([(x, y - s * 1.1), (x + s * 1.1, y), (x, y + s * 1.1), (x - s * 1.1, y)]),
        lambda: _polygon([(x, y + s), (x + s, y - s * 0.8), (x - s, y - s * 0.8)]),
    )
    return tag("g", shapes[_ORDER[slot % len(_ORDER)]](), class_=f"dot slot-{slot % 8}")


_ORDER = (0, 1, 2, 3, 0, 4, 1, 2)


class _Scale:
    """Values to positions."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float):
        self.axis, self.start, self.end = axis, start, end
        self.low, self.high = axis.limits or _limits(values, axis.log)
        self._bounds = (self._map(self.low), self._map(self.high))

    def _map(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.axis.log else value

    def __call__(self, value: float) -> float:
        low, high = self._bounds
        share = (self._map(value) - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> Sequence[float]:
        if self.axis.ticks:
            return self.axis.ticks
        return _log_ticks(self.low, self.high) if self.axis.log else round_ticks(self.low, self.high)


def _limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        return low / 1.1, high * 1.1
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    # Something that is never negative does not get an axis below zero.
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks[:: math.ceil(len(ticks) / 5)] if ticks else [low, high]


def _bands(bands: Sequence[Band], across: _Scale) -> list[Markup]:
    top, bottom, parts = _TOP_WITH_BANDS, _HEIGHT - _BOTTOM, []
    for index, band in enumerate(bands):
        left, right = across(band.start), across(band.end)
        if index % 2:
            size = {"width": _f(right - left), "height": bottom - top}
            parts.append(tag("rect", x=_f(left), y=top, class_="band", **size))
        if index:
            parts.append(_rule(left, top - 4, left, bottom, "boundary"))
        if right - left >= 8 * len(band.label):
            parts.append(_text(band.label, (left + right) / 2, top - 8, anchor="middle", kind="stage"))
    return parts


def _y_axis(up: _Scale) -> list[Markup]:
    parts = []
    for tick in up.ticks():
        y = up(tick)
        parts.append(_rule(_LEFT, y, _WIDTH - _RIGHT, y, "grid"))
        parts.append(_text(up.axis.write(tick), _LEFT - 6, y + 4, anchor="end"))
    return parts


def _x_axis(across: _Scale, title: str) -> list[Markup]:
    bottom = _HEIGHT - _BOTTOM
    parts = [_rule(_LEFT, bottom, _WIDTH - _RIGHT, bottom, "axis")]
    for tick in across.ticks():
        x = across(tick)
        parts.append(_rule(x, bottom, x, bottom + 4, "axis"))
        parts.append(_text(across.axis.write(tick), x, bottom + 16, anchor="middle"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return [*parts, _text(title, middle, _HEIGHT - 4, anchor="middle", kind="axis-title")]


def _line(series: Series, across: _Scale, up: _Scale) -> list[Markup]:
    points = moving_average(series.points) if series.smooth else series.points
    parts = [_path(series.points, across, up, f"line faint slot-{series.slot % 8}")] if series.smooth else []
    parts.append(_path(points, across, up, f"line slot-{series.slot % 8}"))
    if series.marked or len(points) == 1:
        parts += [marker(series.slot, across(x), up(y)) for x, y in points]
    return parts


def _path(points: Sequence[Point], across: _Scale, up: _Scale, kind: str) -> Markup:
    coordinates = " ".join(f"{_f(across(x))},{_f(up(y))}" for x, y in points)
    return tag("polyline", points=coordinates, class_=kind)


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=_f(x1), y1=_f(y1), x2=_f(x2), y2=_f(y2), class_=kind)


def _text(text: str, x: float, y: float, anchor: str, kind: str = "tick") -> Markup:
    return tag("text", text, x=_f(x), y=_f(y), text_anchor=anchor, class_=kind)


def _polygon(corners: Sequence[Point]) -> Markup:
    return tag("polygon", points=" ".join(f"{_f(x)},{_f(y)}" for x, y in corners))


def _mean_point(points: Sequence[Point]) -> Point:
    return (math.fsum(x for x, _ in points) / len(points), math.fsum(y for _, y in points) / len(points))


def _f(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
