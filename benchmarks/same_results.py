"""Do two revisions of latentplan give equal results, digit for digit, on a CPU?

    python benchmarks/same_results.py OLD_REVISION                    with the working tree
    python benchmarks/same_results.py OLD_REVISION NEW_REVISION
    python benchmarks/same_results.py HEAD --parts llama gpt2         some of the parts

For refactorings. Both revisions carry out the same commands in folders of their own, by one thread and with
fixed seeds; then weights, logged losses and rewards, sampled trajectories, evaluations and summary.json are
compared. The parts:

    quickstart     `latentplan quickstart --scale 0.05 --num_problems 100`
    llama, gpt2, … a random backbone of the family (2 layers, width 32): ATP-Latent's supervised stage, GRPO
                   by the score function and by the pathwise gradient, evaluations, and one more method

A part that is done stays in --output and is not computed again; one that fails leaves the others. The table
comes last; same_results.json in --output holds it, with the first differences of each kind. The exit status
is 1 where anything differs or failed. What may differ, and what has been renamed: result_differences.py.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from result_differences import RENAMED, Comparison, Tables, Values, compare, read_run
from tiny_families import FAMILIES, PARTS, Command, commands_of, fingerprint, hash_of, make_inputs, spelled

ROOT = Path(__file__).parents[1]
SHOWN = 2  # examples of each difference below the table; the JSON file has more
PACKAGES = ("torch", "transformers", "accelerate", "numpy", "tokenizers")
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "LATENTPLAN_CACHE": "cache",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
# Each command in a process of its own, forked from one that has imported what takes long to import.
_PRELOAD = "import torch; from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer"
_RUNNER = """
import importlib.util, json, os, runpy, sys, time, traceback

source, preload, commands = json.load(sys.stdin)
found = importlib.util.find_spec("latentplan").origin
assert os.path.realpath(found).startswith(os.path.realpath(source)), f"latentplan would come from {found}"
exec(preload)

def carry_out(command):
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["latentplan", *command]
    print("$", *sys.argv, flush=True)
    status = 0
    try:
        runpy.run_module("latentplan", run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        status = 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

for command in commands:
    started = time.monotonic(), sum(os.times()[2:4])
    child = os.fork()
    if child == 0:
        carry_out(command)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended = time.monotonic(), sum(os.times()[2:4])
    print(json.dumps([command, status, ended[0] - started[0], ended[1] - started[1]]), flush=True)
    if status:
        sys.exit(1)
"""


class PartFailedError(RuntimeError):
    """A command ended with an error; the message has the end of its log."""


@dataclass(frozen=True)
class Side:
    """One of the two revisions.

    Attributes:
        role: old or new.
        revision: as asked for; None is the working tree.
        identity: of the commit, or of the files of the working tree.
        folder: of its source and its parts.
    """

    role: str
    revision: str | None
    identity: str
    folder: Path

    @property
    def source(self) -> Path:
        """What PYTHONPATH names."""
        return self.folder / "source" / "src"

    @property
    def title(self) -> str:
        """As the user reads it."""
        return f"{self.role} ({self.revision or 'working tree'})"


# The two revisions.


def make_side(role: str, revision: str | None, output: Path) -> Side:
    """Writes the source of a revision into `output`. Raises ValueError where git does not know it."""
    identity = _tree_identity() if revision is None else _commit(revision)
    side = Side(role, revision, identity, output / f"{role}-{identity}")
    if not side.source.is_dir():
        partial = side.folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        if revision is None:
            shutil.copytree(ROOT / "src", partial / "src", ignore=shutil.ignore_patterns("__pycache__"))
        else:
            packed = subprocess.run(
                ["git", "archive", identity, "src"], cwd=ROOT, check=True, capture_output=True
            )
            with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
                archive.extractall(partial, filter="data")
        partial.rename(side.folder / "source")
    return side


def _commit(revision: str) -> str:
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"git knows no revision {revision!r} here")
    return done.stdout.strip()[:12]


def _tree_identity() -> str:
    files = [file for file in (ROOT / "src").rglob("*") if "__pycache__" not in file.parts]
    return "tree" + hash_of(files, ROOT)[:8]


# Carrying commands out.


@cache
def _help(side: Side, name: str) -> str:
    flag = "--help_settings" if name in ("sft", "grpo") else "--help"
    command = [sys.executable, "-m", "latentplan", name, flag]
    environment = {**_environment(side), "COLUMNS": "300"}  # nothing is cut off
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def _words(command: Command, side: Side) -> list[str]:
    renamed = RENAMED["settings"]
    is_renamed = any(name in renamed for name in command[1])
    return spelled(command, renamed, _help(side, command[0][0]) if is_renamed else "")


def run_part(part: str, side: Side, commands: Sequence[Command]) -> Path:
    """Carries out a part's commands, unless that has been done; returns its folder.

    Raises:
        PartFailedError: a command failed.
    """
    folder, words = side.folder / part, [_words(command, side) for command in commands]
    versions = {package: version(package) for package in PACKAGES}
    key = {
        "commands": words,
        "versions": {"python": sys.version.split()[0], **versions},
        "inputs": fingerprint(side.folder.parent / "inputs", [part] if part in FAMILIES else []),
    }
    done = folder / "done.json"
    if done.is_file() and json.loads(done.read_text()) == key:
        _say(f"{part}, {side.title}: done before")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _carry_out(part, side, folder, words)
    done.write_text(json.dumps(key, indent=2))
    return folder


def _carry_out(part: str, side: Side, folder: Path, commands: list[list[str]]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _RUNNER],
        cwd=folder,
        env=_environment(side),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as stdin:
            stdin.write(json.dumps([str(side.source.resolve()), _PRELOAD, commands]))
        for number, line in enumerate(process.stdout, 1):
            words, status, seconds, cpu = json.loads(line)
            done = f"{number}/{len(commands)} {_named(words)}, {seconds:.0f} s ({cpu:.0f} s of CPU time)"
            _say(f"{part}, {side.title}: {done}")
            if status:
                raise PartFailedError(
                    f"`{' '.join(words)}` ended with exit status {status}:\n{_tail(folder)}"
                )
        if process.wait():
            raise PartFailedError(f"the process of {part} ended before its commands were carried out")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _environment(side: Side) -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(side.source.resolve())}


def _named(words: Sequence[str]) -> str:
    """A command in short: its name and the run that it writes or evaluates."""
    run = words[words.index("--output_dir") + 1] if "--output_dir" in words else words[1]
    return words[0] if run.startswith("--") else f"{words[0]} {run}"


def _tail(folder: Path, lines: int = 15) -> str:
    log = folder / "log.txt"
    text = log.read_text(errors="replace") if log.is_file() else ""
    return "\n".join(text.splitlines()[-lines:]) + f"\n(whole log: {log})"


# Comparing what they left.

Results = dict[str, dict[str, Comparison]]
"""By run, by kind."""


def compare_parts(old: Path, new: Path, tolerance: float = 0.0, allow_added: bool = False) -> Results:
    """Compares the runs of a part; a run, kind or file that only one side has is a difference.

    Raises:
        PartFailedError: the old revision left no weights, or nothing that was logged.
    """
    before, after = _runs(old, RENAMED), _runs(new)
    for kind in ("weights", "training"):
        if not any(values.get(kind) for values in before.values()):
            raise PartFailedError(f"no {kind} were found in {old}: the comparison would say nothing")
    results: Results = {}
    for run in {**before, **after}:
        olds, news = before.get(run, {}), after.get(run, {})
        results[run] = {
            kind: compare(olds.get(kind, {}), news.get(kind, {}), tolerance, allow_added)
            for kind in {**olds, **news}
        }
    return results


def _runs(part: Path, renamed: Tables | None = None) -> dict[str, dict[str, Values]]:
    """What each run of a part left, by kind; the quickstart's own folder has its summary."""
    folders = sorted({file.parent for file in part.rglob("run.json")} | {part / "quickstart"})
    runs = {}
    for folder in folders:
        kinds = read_run(folder, renamed)
        if kinds:
            runs[folder.relative_to(part).as_posix()] = kinds
    return runs


def table(parts: Mapping[str, Results | str]) -> str:
    """The Markdown table, and below it what differs and what failed."""
    kinds = ("weights", "training", "samples", "evaluation", "summary")
    rows = [["part", "run", *kinds]]
    notes = []
    for part, results in parts.items():
        if isinstance(results, str):
            rows.append([part, "failed", *("" for _ in kinds)])
            notes.append(f"{part} failed: {results}")
            continue
        for run, found in results.items():
            rows.append([part, run, *(_cell(found.get(kind)) for kind in kinds)])
            for kind in kinds:
                if kind in found and found[kind].different:
                    notes += _lines(f"{part}, {run}, {kind}", found[kind])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([*lines, "", *notes])


def _cell(found: Comparison | None) -> str:
    if found is None:
        return ""
    if not found.different:
        return f"{found.compared} equal"
    number = "" if found.different == found.not_numbers else f", {found.largest:.3g}"
    return f"{found.different} of {found.compared} differ{number}"


def _lines(title: str, found: Comparison) -> list[str]:
    first = [f"    {where}: {old} -> {new}" for where, old, new in found.examples[:SHOWN]]
    lines = [f"{title}: {_cell(found)} at {found.where}"]
    if found.not_numbers:
        lines[0] += f"; {found.not_numbers} are texts, or missing, or of another shape"
    return [*lines, *first]


def is_equal(results: Results | str) -> bool:
    """Whether a part is without differences, and did not fail."""
    if isinstance(results, str):
        return False
    return not any(found.different for kinds in results.values() for found in kinds.values())


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", metavar="OLD_REVISION")
    parser.add_argument("new", metavar="NEW_REVISION", nargs="?", help="absent: the working tree")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--scale", type=float, default=0.05, help="of the quickstart's training (0.05)")
    parser.add_argument("--num_problems", type=int, default=100, help="evaluated in the quickstart (100)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        help="largest difference of two numbers that is none, relative above 1 (0: equal to the last digit)",
    )
    parser.add_argument(
        "--allow_added", action="store_true", help="what only the new revision writes is no difference"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "same_results")
    return parser, parser.parse_args()


def main() -> None:
    """Runs all parts with both revisions, compares them, prints the table."""
    parser, asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
    try:
        sides = [make_side(role, getattr(asked, role), asked.output) for role in ("old", "new")]
    except ValueError as error:
        parser.error(str(error))
    make_inputs(asked.output / "inputs", [part for part in asked.parts if part in FAMILIES])
    parts: dict[str, Results | str] = {}
    for part in asked.parts:
        commands = commands_of(part, asked.scale, asked.num_problems)
        try:
            folders = [run_part(part, side, commands) for side in sides]
            parts[part] = compare_parts(*folders, asked.tolerance, asked.allow_added)
        except Exception as error:
            parts[part] = str(error) if isinstance(error, PartFailedError) else repr(error)
        _say(f"{part}: {'equal' if is_equal(parts[part]) else 'DIFFERS or failed'}")
        _write(asked, sides, parts)
    print(table(parts))
    sys.exit(0 if all(map(is_equal, parts.values())) else 1)


def _write(asked: argparse.Namespace, sides: Sequence[Side], parts: Mapping[str, Results | str]) -> None:
    written: dict[str, Any] = {side.role: {"revision": side.revision, "id": side.identity} for side in sides}
    written["tolerance"] = asked.tolerance
    written["equal"] = all(map(is_equal, parts.values()))
    written["parts"] = {
        part: {"failed": results}
        if isinstance(results, str)
        else {run: {kind: asdict(found) for kind, found in kinds.items()} for run, kinds in results.items()}
        for part, results in parts.items()
    }
    (asked.output / "same_results.json").write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
