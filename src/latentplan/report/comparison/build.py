"""Writing the tables: Markdown, CSV, JSON, LaTeX and a plot, from what the runs hold now."""

from __future__ import annotations

import json
from pathlib import Path

from latentplan.common.files import write_atomically
from latentplan.report.comparison.columns import flat_rows
from latentplan.report.comparison.measures import read_comparison
from latentplan.report.comparison.notes import notes
from latentplan.report.comparison.pairs import all_pairs
from latentplan.report.comparison.tables import csv_text, latex, markdown
from latentplan.report.figures.accuracy_tokens import draw_comparison


def build_comparison(folder: Path) -> list[Path]:
    """Writes everything beside `compare.json` and returns the files.

    Raises:
        ValueError: the folder holds no comparison.
    """
    comparison = read_comparison(folder)
    plan, rows = comparison.plan, flat_rows(comparison)
    pairs = [pair for benchmark in comparison.benchmarks for pair in all_pairs(comparison, benchmark)]
    said = notes(comparison, rows)
    plots = draw_comparison(rows, folder)
    if not plots:
        said = [*said, "No plot: matplotlib is not installed (pip install 'latentplan[plot]')."]
    result = {
        **{key: plan[key] for key in ("title", "command", "seeds", "budget", "reference", "benchmarks")},
        "rows": rows,
        "pairs": [pair.to_json() for pair in pairs],
        "notes": said,
    }
    flat_pairs = [{**pair.to_json(), "mcnemar": json.dumps(pair.mcnemar)} for pair in pairs]
    texts = {
        "table.md": markdown(plan, rows, pairs, said),
        "table.csv": csv_text(rows),
        "pairs.csv": csv_text(flat_pairs),
        "table.tex": latex(plan, rows),
        "comparison.json": json.dumps(result, indent=2, ensure_ascii=False) + "\n",
    }
    return [*(write_atomically(folder / name, text) for name, text in texts.items()), *plots]
