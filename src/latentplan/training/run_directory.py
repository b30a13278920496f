"""The run directory: what a run was, and what it measured, so that it can be read, resumed and repeated.

runs/NAME/  config.yaml  run.json  metrics.jsonl  samples.jsonl  checkpoint-N/  model/  evaluation/
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from transformers import TrainerCallback

from latentplan.common.files import write_atomically
from latentplan.common.renamed_settings import renamed_settings
from latentplan.common.run_files import (
    CHECKPOINTS,
    FINISHED,
    METRICS,
    MODEL,
    RECORD,
    SAMPLES,
    SETTINGS,
    has_trained,
    is_finished,
    model_folders,
    read_rows,
)
from latentplan.common.secrets import is_secret, masked, masked_arguments, masked_command
from latentplan.modeling.folders.damage import read_json, read_yaml

PACKAGES = ("latentplan", "torch", "transformers", "accelerate", "safetensors", "tokenizers", "numpy")
# Settings that may differ between a run and its continuation: they change where and how, not what.
_FREE_SETTINGS = {
    "output_dir",
    "logging_dir",
    "torch_threads",
    "overwrite_output_dir",
    "disable_tqdm",
    "dataset_cache_dir",
    "dataset_streaming",
    "run_name",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "report_to",
    "on_nonfinite",
    "check_saving",
    "trust_remote_code",
}
_ONCE_NULL = {"compression_factor"}
"""Settings of a method whose default earlier versions recorded as null."""
LOCK = ".lock"
_SPREAD = {"per_device_train_batch_size", "gradient_accumulation_steps"}


class RunConflictError(ValueError):
    """A run directory holds a run with other settings."""


def weights_fingerprint(model: str | None) -> str | None:
    """SHA-256 of the weights of a model folder or run; None where `model` is no local folder with weights."""
    for folder in reversed(model_folders(model)) if model else ():
        files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
        if files:
            digest = hashlib.sha256()
            for file in files:
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            return digest.hexdigest()
    return None


def differing_settings(path: Path, settings: dict[str, Any], also_free: Sequence[str] = ()) -> list[str]:
    """What keeps the run in `path` from being one with these resolved settings: `name: 1 there, 2 now`.

    A continuation may change where and how a run is done, and how the batch is spread where only its size was
    asked for; `also_free` names settings that may differ besides. So may secrets, which are masked. Settings
    that the earlier run saved by old names are compared by their present ones.
    """
    earlier = renamed_settings(read_yaml(path / SETTINGS))
    free = _FREE_SETTINGS | (_SPREAD if settings.get("effective_batch_size") else set()) | set(also_free)
    return [
        f"{name}: {earlier[name]!r} there, {settings[name]!r} now"
        for name in sorted(settings.keys() & earlier.keys())  # newer versions know more settings
        if name not in free and not is_secret(name) and earlier[name] != settings[name]
        if not (name in _ONCE_NULL and earlier[name] is None)
    ]


WHAT = {"data": "training data", "start": "weights to start from"}


class RunDirectory:
    """One run's folder.

    Args:
        path: the folder.
        settings: the resolved configuration, flat.
        command: the command line.
        overwrite: delete an earlier run first.
        writes: whether this process writes; of several, only the first does.

    Attributes:
        hub_token: with which the run is pushed; written nowhere.

    Raises:
        RunConflictError: the folder holds a run with other settings; names them. Or another process trains in
            it.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        settings: dict[str, Any],
        command: str,
        overwrite: bool = False,
        writes: bool = True,
    ):
        self.path, self.writes = Path(path), writes
        self.settings = masked(json.loads(json.dumps(settings, default=str)))
        self.hub_token: str | None = None
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path) if writes and (overwrite or not _has_finished(self.path)) else None
        if overwrite and writes and (self.path / RECORD).is_file():
            _empty(self.path)
        self.record = self._earlier_record()
        self.record.update(
            name=self.path.name,
            command=masked_command(command),
            created=self.record.get("created") or _now(),
            versions={"python": platform.python_version(), **_versions()},
            git=_git_commit(),
            machine=f"{platform.machine()}, {os.cpu_count()} CPU cores",
        )

    def _earlier_record(self) -> dict[str, Any]:
        if not has_trained(self.path):
            text = yaml.safe_dump(self.settings, sort_keys=True, allow_unicode=True)
            self._write(self.path / SETTINGS, text)
            return {}
        differing = differing_settings(self.path, self.settings)
        if differing:
            raise RunConflictError(
                f"{self.path} holds a run with other settings ({'; '.join(differing)}): choose another "
                "--output_dir, or start again with --overwrite_output_dir true"
            )
        record = self.path / RECORD
        return read_json(record) if record.is_file() else {}

    @property
    def finished(self) -> bool:
        """Whether the run has been completed already."""
        return is_finished(self.path, self.record)

    @property
    def model_path(self) -> Path:
        """Where the trained model lies."""
        return self.path / MODEL

    def update(self, **values: Any) -> None:
        """Adds to run.json and writes it."""
        self.record.update(json.loads(json.dumps(values, default=str)))
        self._write(self.path / RECORD, json.dumps(self.record, indent=2) + "\n")

    def pin(self, **fingerprints: str | None) -> None:
        """Holds the run to what it was started on.

        Raises:
            RunConflictError: the run has already trained on something else.
        """
        pinned = self.record.get("pinned", {})
        for name, value in fingerprints.items():
            if name in pinned and pinned[name] != value:
                raise RunConflictError(
                    f"{self.path} was started with other {WHAT[name]} under the same name: choose another "
                    "--output_dir, or start again with --overwrite_output_dir true"
                )
        self.update(pinned={**pinned, **fingerprints})

    def _write(self, path: Path, text: str) -> None:
        if self.writes:
            write_atomically(path, text)

    def finish(self) -> None:
        """Marks the run as completed and removes its checkpoints, which the model replaces."""
        self.update(status=FINISHED, finished=_now())
        for checkpoint in self.path.glob(CHECKPOINTS):
            shutil.rmtree(checkpoint)
        self.leave()
        if self._lock is not None:
            (self.path / LOCK).unlink(missing_ok=True)

    def leave(self) -> None:
        """Lets other processes train in the folder, which may then also be moved; done by `finish`."""
        if self._lock is not None:
            self._lock.release(force=True)

    def finish_model(self, save: Any) -> None:
        """Calls `save(folder)` on a temporary folder and renames it to `model/`."""
        temporary = self.path / ".model-in-progress"
        shutil.rmtree(temporary, ignore_errors=True)
        save(temporary)
        shutil.rmtree(self.model_path, ignore_errors=True)
        os.replace(temporary, self.model_path)


def _has_finished(path: Path) -> bool:
    record = path / RECORD
    return record.is_file() and is_finished(path, read_json(record))


def _lock(path: Path) -> FileLock | None:
    """Held until the run has finished or failed or the process ends; None where there are no locks."""
    lock = FileLock(path / LOCK, timeout=0, is_singleton=True, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunConflictError(
            f"another process trains in {path}: wait for it, or choose another --output_dir"
        ) from None
    except (OSError, NotImplementedError):
        return None
    return lock


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


class MetricsFile(TrainerCallback):
    """Appends every logged line to metrics.jsonl; a resumed run drops what came after its checkpoint.

    `seconds` counts training time from the start of the run, through interruptions.
    """

    def __init__(self, run: RunDirectory):
        self.run, self.path = run, run.path / METRICS
        self.seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cuts metrics and samples to the step that training goes on from."""
        if not state.is_world_process_zero:
            return
        kept = _keep_lines(self.path, before=state.global_step + 1 if state.global_step else 0)
        self.seconds = max((row.get("seconds", 0.0) for row in kept), default=0.0)
        # A sample bears the number of steps before it: those of the step to come are drawn again, but an
        # evaluation comes before the checkpoint.
        _keep_lines(self.run.path / SAMPLES, before=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Writes one line, with a loss, or of an evaluation; others are not measurements."""
        logs = logs or {}
        evaluated = any(name.startswith("eval_") for name in logs)
        if not state.is_world_process_zero or not (evaluated or "loss" in logs):
            return
        row = {"step": state.global_step, **{name: _as_json(value) for name, value in logs.items()}}
        if "loss" in logs:
            self.seconds += logs["seconds"]
            row["seconds"] = round(self.seconds, 3)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _as_json(value: Any) -> Any:
    """JSON has no NaN: a step that `on_nonfinite: skip` left out has the loss null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _keep_lines(path: Path, before: int) -> list[dict[str, Any]]:
    """Drops the lines of a file from step `before` on; returns those that stay."""
    if not path.is_file():
        return []
    kept = [row for row in read_rows(path).rows if row["step"] < before + (row.get("split") == "validation")]
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return kept


def command_line() -> str:
    """The command that started this process, as a user would type it, without its secrets."""
    return shlex.join(["latentplan", *masked_arguments(sys.argv[1:])])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
