"""Several commands in one process, which saves importing PyTorch for each, and which ends with its parent.

python -m latentplan.cli.subprocess_entry '[["sft", "--config", "quickstart/cot"], ["evaluate", ...]]'
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs the commands in turn, up to the first that fails."""
    end_with_parent()
    from latentplan.cli.app import app

    program = sys.argv[0]
    for command in json.loads(sys.argv[1]):
        sys.argv = [program, *command]  # what a run directory records as its command
        try:
            app()
        except SystemExit as ended:
            if ended.code:
                raise


def end_with_parent() -> None:
    """Has Linux terminate this process when its parent dies, even by SIGKILL; nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
