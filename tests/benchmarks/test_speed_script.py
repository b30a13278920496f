"""The benchmark's road is whole: every part, at the smallest shape."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_part_is_measured(tmp_path):
    output = tmp_path / "speed.json"
    command = [sys.executable, "benchmarks/speed.py", "--quick", "--shape", "quickstart", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(output.read_text())
    parts = {row["part"] for row in written["rows"]}
    assert parts == {"exact", "rollout", "answer", "sft", "rl", "evaluate", "floor", "scaling"}
    (exact,) = (row["what"] for row in written["rows"] if row["part"] == "exact")
    assert exact == "2 of 2 trajectories equal in float32"
    assert all(row["ours"] > 0 for row in written["rows"])
    ratios = [row["ratio"] for row in written["rows"] if "published" in row]
    assert len(ratios) == 3
    assert min(ratios) > 1


def test_a_part_that_fails_leaves_the_others(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speed

    def fail(bench):
        raise ZeroDivisionError

    monkeypatch.setitem(speed.PARTS, "floor", fail)
    (row,) = speed.measured(None, "floor")
    assert row["what"] == "FAILED: ZeroDivisionError"
    assert "Traceback" in row["error"]
    assert "FAILED" in speed.table([{"shape": "quickstart", **row}])
