"""`latentplan quickstart` from end to end, at a scale at which nothing is learned."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.experiments import jobs

METHODS = [
    "cot",
    "no_cot",
    "coconut",
    "atp_latent_sft",
    "atp_latent_rl",
    "cot_500",
    "atp_latent_500_sft",
    "atp_latent_500_rl",
]
TITLES = ["CoT (written)", "No-CoT", "Coconut", "ATP-Latent, SFT", "ATP-Latent, RL"]
TITLES += ["CoT, 500 chains", "ATP-Latent, SFT, 500 chains", "ATP-Latent, RL from 500 chains"]
KEYS = ["accuracy", "interval", "accuracy_sampled", "tokens", "coherence", "seconds"]
SMALL = ["--scale", "0.004", "--num_problems", "8"]


def invoke(output, *arguments):
    options = ["quickstart", "--output", str(output), *SMALL, *arguments]
    return CliRunner().invoke(app, options, env={"COLUMNS": "160"})


def no_process(*arguments, **options):
    raise AssertionError("a process was started")


def test_quickstart_from_end_to_end_and_again(tmp_path, monkeypatch):
    output = tmp_path / "quick start"
    monkeypatch.setattr(sys, "argv", ["latentplan", "quickstart", "--scale", "0.004"])
    done = invoke(output)
    assert done.exit_code == 0, done.output
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary) == ["seconds", "reconstruction", "methods"]
    assert list(summary["methods"]) == METHODS
    assert all(list(method) == KEYS for method in summary["methods"].values())
    for name, method in summary["methods"].items():
        assert None not in [value for key, value in method.items() if key != "coherence"], name
        settings = (output / name / "config.yaml").read_text()
        labelled = 500 if name in ("cot_500", "atp_latent_500_sft") else 2000
        assert f"dataset_size: {labelled}\n" in settings
        record = json.loads((output / name / "run.json").read_text())
        assert record["command"].startswith(f"latentplan {'grpo' if name.endswith('rl') else 'sft'} --config")
        assert (output / f"{name}.log").read_text().count("minigsm:quickstart") >= 2
    page = (output / "report.html").read_text()
    assert "<code>latentplan quickstart --scale 0.004</code>" in page
    assert "/cot_500" in (output / "atp_latent_500_sft" / "config.yaml").read_text()
    assert "/atp_latent_500_sft" in (output / "atp_latent_500_rl" / "config.yaml").read_text()
    for title in TITLES:
        assert re.search(rf"│ {re.escape(title)} +│ +\d+\.\d% │", done.output), done.output
        assert f"{title}</th>" in page

    (output / "report.html").unlink()
    monkeypatch.setattr(subprocess, "Popen", no_process)
    again = invoke(output)
    assert again.exit_code == 0, again.output
    assert json.loads((output / "summary.json").read_text()) == summary
    assert (output / "report.html").is_file()

    # Other settings, or a result that is gone, are not passed over.
    assert isinstance(invoke(output, "--seed", "1").exception, AssertionError)
    (output / "cot" / "evaluation" / "minigsm-quickstart.json").unlink()
    assert isinstance(invoke(output).exception, AssertionError)


@pytest.fixture
def started(monkeypatch):
    """Every process of the quickstart, each of which does nothing for a minute."""
    processes, popen = [], subprocess.Popen

    def start(command, **options):
        processes.append(popen([sys.executable, "-c", "import time; time.sleep(60)"], **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return processes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_an_interruption(number, started, tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: os.kill(os.getpid(), number))
    monkeypatch.setattr(jobs, "time", clock)
    handler = signal.getsignal(signal.SIGTERM)
    # A shell that starts its jobs in the background has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert invoke(tmp_path).exit_code == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2  # one a worker
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_job_that_fails_ends_the_others(tmp_path):
    (tmp_path / "cot" / "model").mkdir(parents=True)
    (tmp_path / "cot" / "config.yaml").write_text("seed: 7\n")
    done = invoke(tmp_path)
    assert done.exit_code == 2
    assert "CoT (written) ended with exit status 2" in done.stderr
    assert "other settings" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_children_end_even_with_a_parent_that_is_killed():
    child = (
        "from latentplan.cli.subprocess_entry import end_with_parent as e; e(); print(1, flush=True); input()"
    )
    parent = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, "
        "stdout=subprocess.PIPE); child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.05)
    raise AssertionError("the child lives on")


def alive(pid):
    """Whether a process runs: not gone, and not waiting to be reaped either."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
