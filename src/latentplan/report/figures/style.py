"""How every figure of matplotlib looks: colours with markers and line styles, so that none needs its colour.

Needs matplotlib (the extra `plot`); it is imported where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

COLOURS = ("#56616c", "#b97400", "#00876a", "#3f9bd8", "#00529b", "#c8470b", "#b0578b", "#7a7a00")
MARKERS = "os^Dvph*XP"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
INK, SOFT, RULE, GOOD, BAD = "#1c2126", "#58626c", "#dcdfdc", "#00714f", "#b3261e"

_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": RULE,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "latentplan",
}
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_USE = re.compile(r'\s*(<use xlink:href="#\w+" x="[-\d.]+" y="[-\d.]+") style="([^"]*)"/>')
_RUN_OF_USES = re.compile(f"(?:{_USE.pattern})+")
_PNG_COLOURS = 128


@contextmanager
def styled() -> Iterator[None]:
    """Makes figures that are made and saved inside look alike."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure of so many inches, laid out by itself."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def look(index: int) -> dict[str, Any]:
    """Returns colour, marker and line style of the line at an index."""
    return {
        "color": (COLOURS[4], COLOURS[5], COLOURS[2], COLOURS[1], COLOURS[6], COLOURS[0])[index % 6],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
    }


def save(figure: Any, folder: Path, stem: str) -> tuple[Path, Path]:
    """Writes `stem.png` (128 colours) and `stem.svg` (numbers of two decimals) and returns both."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    figure.savefig(png, dpi=130)
    _quantise(png)
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    text = _METADATA.sub("", svg.read_text(encoding="utf-8"))
    text = _RUN_OF_USES.sub(_grouped, _LONG_NUMBER.sub(r"\1", text))
    svg.write_text(text, encoding="utf-8")
    return png, svg


def _grouped(run: re.Match[str]) -> str:
    """Groups neighbouring points of one style, which is written once: a scatter is then half as large."""
    points = [(point[1], point[2]) for point in _USE.finditer(run[0])]
    groups = groupby(points, key=lambda point: point[1])
    return "\n".join(
        f'<g style="{style}">' + "\n".join(f"{use}/>" for use, _ in members) + "</g>"
        for style, members in groups
    )


def _quantise(png: Path) -> None:
    from PIL import Image

    with Image.open(png) as image:
        small = image.convert("RGB").quantize(_PNG_COLOURS, dither=Image.Dither.NONE)
    small.save(png, optimize=True)
