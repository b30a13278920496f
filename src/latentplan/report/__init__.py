"""The report of one or several runs: `summary.json` for programs, `report.html` for people.

    run_reader -> summary                                  what was measured, as one small JSON
    run_reader -> wording, charts, examples -> page        the page

The page needs nothing but itself: styles and figures (SVG) are inline, there is no script and no network.
"""

from latentplan.report.page import build_report
from latentplan.report.run_reader import ReportEntry

__all__ = ["ReportEntry", "build_report"]
