"""The tables of `latentplan compare`, made from `compare.json` and the run directories beside it."""

from latentplan.report.comparison.build import build_comparison

__all__ = ["build_comparison"]
