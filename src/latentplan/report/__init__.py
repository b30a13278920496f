"""The report of one or several runs: `summary.json` for programs, `report.html` for people.

    runs -> summary -> build          what was measured, as one small JSON
    runs -> words, tables, charts, examples -> html -> build     the page

The page needs nothing but itself: styles and figures (SVG) are inline, there is no script and no network.
"""

from latentplan.report.page import build_report
from latentplan.report.run_reader import ReportEntry

__all__ = ["ReportEntry", "build_report"]
