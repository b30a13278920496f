"""A folder of derived data that several processes may build and read at once.

Every entry is a folder that is written aside and renamed, with a manifest of its files. An entry that is
torn, or that another version wrote, counts as absent and is built again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from latentplan.problems.problem import DataError

logger = logging.getLogger(__name__)
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_ABANDONED_AFTER = 3600.0


def cache_root(folder: str | os.PathLike[str] | None = None) -> Path:
    """Returns `folder` if one is given, else `$LATENTPLAN_CACHE`, else `~/.cache/latentplan`."""
    named = folder or os.environ.get("LATENTPLAN_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "latentplan"


class Cache:
    """The cache below one folder.

    Args:
        root: the folder; it is made when something is written.
    """

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)

    def find(self, name: str) -> Path | None:
        """Returns the entry of this name if it is whole, else None."""
        folder = self.root / name
        if not folder.exists():
            return None
        if _is_whole(folder, name):
            return folder
        logger.warning("the cache entry %s is torn or of another version: it is built again", folder)
        return None

    def make(self, name: str, write: Callable[[Path], Mapping[str, Any]]) -> Path:
        """Returns the entry of this name, built by `write(folder)` unless another process has done so
        meanwhile.

        What `write` returns goes into the manifest. Of several processes on one machine one builds, and the
        others wait for it; a process that dies leaves nothing that counts.

        Raises:
            DataError: the cache cannot be written.
        """
        with self._writing(), self._lock(name):
            found = self.find(name)
            return found or self._build(name, write, lambda details: name)

    def make_named(
        self,
        prefix: str,
        write: Callable[[Path], Mapping[str, Any]],
        name_of: Callable[[Mapping[str, Any]], str],
    ) -> Path:
        """Returns an entry whose name only its content tells: `name_of` is given what `write` returns."""
        with self._writing(), self._lock(prefix):
            return self._build(prefix, write, name_of)

    def _build(
        self,
        stem: str,
        write: Callable[[Path], Mapping[str, Any]],
        name_of: Callable[[Mapping[str, Any]], str],
    ) -> Path:
        staging = Path(tempfile.mkdtemp(prefix=f".{stem}.", dir=self.root))
        try:
            details = write(staging)
            name = name_of(details)
            _write_manifest(staging, name, details)
            return self._publish(staging, name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _publish(self, staging: Path, name: str) -> Path:
        """Renames what has been written whole; an equal entry that is there already is kept."""
        folder = self.root / name
        if folder.exists():
            if _is_whole(folder, name):
                return folder
            shutil.rmtree(folder)
        try:
            return staging.replace(folder)
        except OSError:
            if _is_whole(folder, name):  # another machine was faster
                return folder
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise DataError(
                f"cannot write the cache {self.root} ({error}): make room, or name another folder with "
                "dataset_cache_dir or LATENTPLAN_CACHE"
            ) from error

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Holds a lock that the system frees when this process dies; without effect on Windows."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        with (self.root / f".{name}.lock").open("a", encoding="utf-8") as file:
            locked = False
            with suppress(OSError):  # some network file systems have no locks: then renaming alone protects
                fcntl.flock(file, fcntl.LOCK_EX)
                locked = True
            if locked:
                self._sweep(name)
            yield

    def _sweep(self, name: str) -> None:
        """Removes what processes that died have left half-written: nobody has written to it for an hour."""
        for leftover in self.root.glob(f".{name}.*/"):
            with suppress(OSError):  # another machine may finish its own at this moment
                written = max(path.stat().st_mtime for path in (leftover, *leftover.iterdir()))
                if time.time() - written > _ABANDONED_AFTER:
                    shutil.rmtree(leftover, ignore_errors=True)


def manifest_of(folder: Path) -> dict[str, Any]:
    """Reads what was written into an entry's manifest."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def _is_whole(folder: Path, name: str) -> bool:
    try:
        manifest = manifest_of(folder)
        if (manifest["format_version"], manifest["name"]) != (FORMAT_VERSION, name):
            return False
        return all((folder / file).stat().st_size == size for file, size in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_manifest(folder: Path, name: str, details: Mapping[str, Any]) -> None:
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    manifest = {**details, "format_version": FORMAT_VERSION, "name": name, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
