"""How many files does a reader open who follows one thing through the code, and how large is the code?

    python benchmarks/files_to_read.py [REVISION …]              the working tree where none is named

A tiny model is trained, reinforced and served while Python notes every function of latentplan that runs:

    GRPO loss      from a minibatch of trajectories to the loss (`GRPOTrainer.compute_loss`)
    GRPO step      from the problems of a rollout to the loss, rewards and advantages included
    rollout        from token ids to trajectories (`rollout.engine.generate`)
    request        a chat completion, from the request to the response

Files whose functions run are counted, and their lines; imports alone do not count. Then the size of the code:
modules, lines, the median file without `__init__.py`, file names that occur twice, cycles of imports.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TRACED = """
import json, sys, threading, importlib
from pathlib import Path

home = str(Path(importlib.util.find_spec("latentplan").origin).parent)
found = {name: set() for name in ("GRPO loss", "GRPO step", "rollout", "request")}
depth = dict.fromkeys(found, 0)
ENTRIES = {("compute_loss", "training/grpo"): "GRPO loss", ("training_step", ""): "GRPO step",
           ("generate", "rollout/engine"): "rollout"}
everything = False

def profile(frame, event, argument):
    name = frame.f_code.co_filename
    if event not in ("call", "return"):
        return
    inside = name.startswith(home)
    here = name[len(home) + 1:] if inside else ""
    entry = next((each for (function, part), each in ENTRIES.items() if frame.f_code.co_name == function
                  and (here.startswith(part) if part else not inside)), None)
    if entry is not None:
        depth[entry] += 1 if event == "call" else -1
    if event == "call" and inside and not frame.f_code.co_name.startswith("<"):
        for each, level in depth.items():
            if level > 0:
                found[each].add(here)
        if everything:
            found["request"].add(here)

from typer.testing import CliRunner
from latentplan.cli.app import app

def command(*words):
    done = CliRunner().invoke(app, list(words))
    if done.exit_code:
        raise SystemExit(done.output + repr(done.exception))

common = ["--use_cpu", "true", "--report_to", "none", "--dataset_size", "16", "--save_strategy", "no"]
command("sft", "--output_dir", "sft", "--curriculum_steps", "1", "--max_latent_steps", "2",
        "--backbone_config", "{model_type: llama, hidden_size: 16, intermediate_size: 16, "
        "num_hidden_layers: 1, num_attention_heads: 1, num_key_value_heads: 1}",
        "--per_device_train_batch_size", "4", *common)
sys.setprofile(profile)
command("grpo", "--model_name_or_path", "sft", "--output_dir", "rl", "--max_steps", "1",
        "--num_generations", "2", "--per_device_train_batch_size", "4", "--signal_problems", "0",
        "--max_completion_length", "8", *common)
sys.setprofile(None)

import warnings
warnings.simplefilter("ignore")
from fastapi.testclient import TestClient
from latentplan.modeling.loading import load_model
create_app = importlib.import_module("latentplan.serving.app").create_app
threading.setprofile(profile)
with TestClient(create_app({"tiny": load_model("sft/model")}), base_url="http://localhost") as client:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "it starts at 7 ."}], "max_tokens": 4}
    client.post("/v1/chat/completions", json=body)
    everything = True
    status = client.post("/v1/chat/completions", json=body).status_code
    everything = False
print("\\n" + json.dumps({"status": status, **{name: sorted(files) for name, files in found.items()}}))
"""


def measure(source: Path) -> dict[str, object]:
    """The figures of a source tree, `src/latentplan` of a revision."""
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-c", "import importlib.util\n" + _TRACED],
            cwd=place,
            env={
                **os.environ,
                "PYTHONPATH": str(source.parent),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    traced = json.loads(done.stdout.splitlines()[-1])
    if traced.pop("status") != 200:
        raise SystemExit("the server did not answer")
    lines = {
        file: len(file.read_text(encoding="utf-8").splitlines()) for file in sorted(source.rglob("*.py"))
    }
    parts = {name: [lines[source / file] for file in files] for name, files in traced.items()}
    real = [count for file, count in lines.items() if file.name != "__init__.py"]
    names = Counter(file.name for file in lines if file.name != "__init__.py")
    return {
        **{name: f"{len(counts)} files, {sum(counts)} lines" for name, counts in parts.items()},
        "modules": len(lines),
        "lines": sum(lines.values()),
        "median file": int(statistics.median(real)),
        "files over 400 lines": sum(count > 400 for count in real),
        "file names used twice": sum(count > 1 for count in names.values()),
        "cycles of imports": len(cycles(source)),
    }


def cycles(source: Path) -> list[list[str]]:
    """Groups of modules that import each other, also inside of functions or for types alone."""
    modules = {_module(source, file): file for file in source.rglob("*.py")}
    imports = {name: _imported(file, name, modules) for name, file in modules.items()}
    reached = {name: _reached(name, imports) for name in imports}
    groups = {frozenset([name, *(o for o in reached[name] if name in reached[o])]) for name in imports}
    return [sorted(group) for group in groups if len(group) > 1]


def _module(source: Path, file: Path) -> str:
    parts = file.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(file: Path, name: str, modules: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    # A package is imported for its module, not for what its `__init__.py` holds.
    return {each for each in found if each in modules and each != name and not name.startswith(f"{each}.")}


def _reached(name: str, imports: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    left = [*imports[name]]
    while left:
        one = left.pop()
        if one not in reached:
            reached.add(one)
            left += imports[one]
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revisions", nargs="*")
    revisions = parser.parse_args().revisions
    columns: dict[str, dict[str, object]] = {}
    if not revisions:
        columns["working tree"] = measure(ROOT / "src" / "latentplan")
    for revision in revisions:
        with tempfile.TemporaryDirectory() as place:
            archive = subprocess.run(
                ["git", "archive", revision, "src"], cwd=ROOT, check=True, capture_output=True
            ).stdout
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                files.extractall(place, filter="data")
            columns[revision] = measure(Path(place) / "src" / "latentplan")
    print("| | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(str(each[row]) for each in columns.values()) + " |")


if __name__ == "__main__":
    main()
