from __future__ import annotations

from pathlib import Path

from latentplan.common.files import write_atomically


def test_writing_replaces_an_older_file(tmp_path: Path) -> None:
    file = write_atomically(tmp_path / "new" / "file.txt", "old")
    write_atomically(file, "new")
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]
