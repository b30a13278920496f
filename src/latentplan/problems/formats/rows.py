"""From a file to numbered rows: JSON lines, a JSON list, CSV, Parquet, and lines of text.

Each layout yields `(line, row)`, the line being where the row starts (from 1), or in Parquet the row's
number. What cannot be read is yielded in a row's place as a `DataError` that holds the reason only; a layout
that can, goes on with the next row. Rows are read as they are asked for: a file may be larger than memory.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from latentplan.problems.problem import DataError

Row = Mapping[str, Any]
NumberedRow = tuple[int, Row | DataError]

_PARQUET_MAGIC = b"PAR1"
_ROWS_AT_A_TIME = 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UNPACK, _SAVE = "unpack it first", "save it as UTF-8"
_OTHER_ENCODINGS = {
    b"\x1f\x8b": ("compressed (gzip)", _UNPACK),
    b"BZh": ("compressed (bzip2)", _UNPACK),
    b"\xfd7zXZ": ("compressed (xz)", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", _UNPACK),
    b"PK\x03\x04": ("a zip archive (or a spreadsheet)", f"{_UNPACK}, or save it as CSV"),
    b"\xff\xfe": ("text in UTF-16", _SAVE),
    b"\xfe\xff": ("text in UTF-16", _SAVE),
    b"ARROW1": ("an Arrow file", "save it as Parquet or as JSON lines"),
}
"""How files begin that are not read, and what to do."""
_DELIMITERS = ",;\t|"
_BETWEEN_ITEMS = re.compile(r"\s*")
_WINDOW = 1 << 16


def rows_of_file(path: Path) -> Iterator[NumberedRow]:
    """Every row of a data file, whichever layout it has.

    `.csv`, `.tsv`, `.txt` and `.parquet` files are what they say; any other is Parquet or a JSON list if it
    opens as one, else JSON lines. A row of text is `{"text": line}`.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError("it is a folder, not a file" if path.is_dir() else "no such file", file=str(path))
    return _layout_of(path)(path)


def _layout_of(path: Path) -> Callable[[Path], Iterator[NumberedRow]]:
    with path.open("rb") as file:
        opening = file.read(4096)
    _refuse_other_encodings(opening, path)
    tables = dict.fromkeys((".csv", ".tsv", ".tab"), _csv_rows)
    by_suffix = {**tables, ".txt": _text_rows, ".parquet": _parquet_rows}.get(path.suffix.lower())
    if by_suffix is not None:
        return by_suffix
    opening = opening.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if opening.startswith(_PARQUET_MAGIC):
        return _parquet_rows
    return _json_list_rows if opening.startswith(b"[") else _json_lines_rows


def _refuse_other_encodings(opening: bytes, path: Path) -> None:
    """Raises DataError where a file is compressed, or is text in another encoding than UTF-8."""
    for magic, (name, remedy) in _OTHER_ENCODINGS.items():
        if opening.startswith(magic):
            raise DataError(f"it is {name}: {remedy}", file=str(path))


def _lines(path: Path) -> Iterator[tuple[int, str | DataError, bool]]:
    """Every line that is not blank, with its number and whether a line break ends it."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            content = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
            try:
                line = content.decode().strip()
            except UnicodeDecodeError as error:
                yield number, _not_utf8(error, error.start), raw.endswith(b"\n")
                continue
            if line:
                yield number, line, raw.endswith(b"\n")


def _text_rows(path: Path) -> Iterator[NumberedRow]:
    for number, line, _ in _lines(path):
        yield number, line if isinstance(line, DataError) else {"text": line}


def _json_lines_rows(path: Path) -> Iterator[NumberedRow]:
    for number, line, complete in _lines(path):
        yield number, line if isinstance(line, DataError) else _json_row(line, complete)


def _json_row(line: str, complete: bool) -> Row | DataError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = "" if complete else " (the last line has no end: is the file truncated?)"
        return DataError(f"not valid JSON: {error}{hint}")
    return _as_row(row)


def _as_row(value: object) -> Row | DataError:
    if isinstance(value, dict):
        return value
    return DataError(f"a row must be a JSON object with named columns, not {type(value).__name__}")


def _json_list_rows(path: Path) -> Iterator[NumberedRow]:
    """The items of a JSON list, decoded one by one: `json.load` would hold all and forget where they were."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        window, line = _JsonWindow(file), 1
        try:
            window.expect("[")
            while window.peek() != "]":
                line = window.line
                yield line, _as_row(window.item())
                if window.peek() != "]":
                    window.expect(",", "]")
                    if window.peek() == "]":
                        raise ValueError("an item is missing after the last ','")
            window.expect("]")
            if window.peek():
                raise ValueError("expected nothing behind the final ']'")
        except UnicodeDecodeError:
            yield _first_that_is_not_utf8(path)
        except (ValueError, RecursionError) as error:
            yield line, DataError(f"not valid JSON: {error} (is the file truncated?)")


class _JsonWindow:
    """The part of a JSON text that is being decoded; `line` is where its position is, from 1."""

    def __init__(self, file: TextIO):
        self.line = 1
        self._file, self._text, self._position, self._size = file, "", 0, _WINDOW
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not blank, or nothing at the end."""
        while True:
            blanks = _BETWEEN_ITEMS.match(self._text, self._position)
            self._move(blanks.end() if blanks else self._position)
            if self._position < len(self._text) or not self._read_on():
                return self._text[self._position : self._position + 1]

    def expect(self, *characters: str) -> str:
        """Goes past the next character that is not blank. Raises ValueError if it is none of these."""
        found = self.peek()
        if found not in characters:
            raise ValueError(f"expected {' or '.join(map(repr, characters))}, found {found or 'the end'!r}")
        self._move(self._position + 1)
        return found

    def item(self) -> object:
        """Goes past the next value and returns it. Raises ValueError if there is none."""
        self._size = _WINDOW
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except ValueError as error:
                if self._read_on():
                    continue
                raise ValueError(getattr(error, "msg", str(error))) from None
            if end < len(self._text) or not self._read_on():  # a number may go on in the next part
                self._move(end)
                return value

    def _move(self, position: int) -> None:
        self.line += self._text.count("\n", self._position, position)
        self._position = position

    def _read_on(self) -> bool:
        """Reads twice as much as the last time; False at the end."""
        more = self._file.read(self._size)
        self._text, self._position, self._size = self._text[self._position :] + more, 0, 2 * self._size
        return bool(more)


def _csv_rows(path: Path) -> Iterator[NumberedRow]:
    header: list[str] | None = None
    line = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            opening = file.readline(_WINDOW)
            file.seek(0)
            reader = csv.reader(file, strict=True, delimiter=_delimiter(opening))
            for values in reader:
                if values and header is None:
                    header = values
                elif values and header is not None:
                    yield line, _csv_row(header, values)
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, DataError(f"not valid CSV: {error}")
        except UnicodeDecodeError:
            yield _first_that_is_not_utf8(path)


def _delimiter(header: str) -> str:
    """Returns what stands most often between the names of the columns; of equals the first of `,;\\t|`."""
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=unquoted.count)


def _csv_row(header: list[str], values: list[str]) -> Row | DataError:
    if len(header) != len(values):
        return DataError(f"{len(values)} values for the {len(header)} columns {', '.join(header)}")
    return dict(zip(header, values, strict=True))


def _first_that_is_not_utf8(path: Path) -> tuple[int, DataError]:
    """The first line of a file that is not UTF-8."""
    return next((number, line) for number, line, _ in _lines(path) if isinstance(line, DataError))


def _not_utf8(error: UnicodeDecodeError, column: int) -> DataError:
    return DataError(f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte {column} of the line")


def _parquet_rows(path: Path) -> Iterator[NumberedRow]:
    """Each row with its number, from 1; a part that cannot be read ends the file with a `DataError`."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        yield 1, DataError("reading Parquet needs pyarrow: pip install -c constraints.txt -e '.[datasets]'")
        return
    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (ArrowException, OSError) as error:
        yield number + 1, DataError(f"not valid Parquet: {error} (is the file truncated?)")
