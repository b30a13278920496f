"""From a file to numbered rows: JSON lines, a JSON list, CSV, Parquet, and lines of text.

Each layout yields `(line, row)`, the line being where the row starts (from 1), or in Parquet the row's
number. What cannot be read is yielded in a row's place as a `DataError` that holds the reason only; a layout
that can, goes on with the next row. Rows are read as they are asked for; only a JSON list is read whole.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from latentplan.problems.problem import DataError
from latentplan.problems.readers.parquet import PARQUET_MAGIC, parquet_rows

Row = Mapping[str, Any]
NumberedRow = tuple[int, Row | DataError]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BETWEEN_ITEMS = re.compile(r"\s*")


def rows_of_file(path: Path) -> Iterator[NumberedRow]:
    """Every row of a data file, whichever layout it has.

    `.csv`, `.txt` and `.parquet` files are what they say; any other is Parquet or a JSON list if it opens as
    one, else JSON lines. A row of text is `{"text": line}`.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError("it is a folder, not a file" if path.is_dir() else "no such file", file=str(path))
    return _layout_of(path)(path)


def _layout_of(path: Path) -> Callable[[Path], Iterator[NumberedRow]]:
    by_suffix = {".csv": _csv_rows, ".txt": _text_rows, ".parquet": parquet_rows}.get(path.suffix.lower())
    if by_suffix is not None:
        return by_suffix
    with path.open("rb") as file:
        opening = file.read(4096).removeprefix(_BYTE_ORDER_MARK).lstrip()
    if opening.startswith(PARQUET_MAGIC):
        return parquet_rows
    return _json_list_rows if opening.startswith(b"[") else _json_lines_rows


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
    """The items of a JSON list, decoded one by one, because `json.load` would forget where they were."""
    text = _whole_text(path)
    if isinstance(text, tuple):
        yield text
        return
    decoder = json.JSONDecoder()
    position, line = _skip_blanks(text, text.index("[") + 1), 1
    counted = 0
    while not text.startswith("]", position):
        line += text.count("\n", counted, position)
        counted = position
        try:
            item, position = decoder.raw_decode(text, position)
            yield line, _as_row(item)
            position = _next_item(text, position)
        except (ValueError, RecursionError) as error:
            yield line, DataError(f"not valid JSON: {error} (is the file truncated?)")
            return


def _next_item(text: str, position: int) -> int:
    """Where the next item, or the closing bracket, starts. Raises ValueError if there is neither."""
    position = _skip_blanks(text, position)
    if text.startswith(",", position) and not text.startswith(
        "]", following := _skip_blanks(text, position + 1)
    ):
        return following
    if text.startswith("]", position) and not text[position + 1 :].strip():
        return position
    raise json.JSONDecodeError("expected ',' or the final ']'", text, position)


def _skip_blanks(text: str, position: int) -> int:
    blanks = _BETWEEN_ITEMS.match(text, position)
    return blanks.end() if blanks else position


def _csv_rows(path: Path) -> Iterator[NumberedRow]:
    header: list[str] | None = None
    line = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for values in reader:
                if values and header is None:
                    header = values
                elif values and header is not None:
                    yield line, _csv_row(header, values)
                line = reader.line_num + 1
        except csv.Error as error:
            yield line, DataError(f"not valid CSV: {error}")
        except UnicodeDecodeError:
            yield next((number, text) for number, text, _ in _lines(path) if isinstance(text, DataError))


def _csv_row(header: list[str], values: list[str]) -> Row | DataError:
    if len(header) != len(values):
        return DataError(f"{len(values)} values for the {len(header)} columns {', '.join(header)}")
    return dict(zip(header, values, strict=True))


def _whole_text(path: Path) -> str | tuple[int, DataError]:
    """The text of a file, or the line that is not UTF-8."""
    content = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line_start = content.rfind(b"\n", 0, error.start) + 1
        return content.count(b"\n", 0, error.start) + 1, _not_utf8(error, error.start - line_start)


def _not_utf8(error: UnicodeDecodeError, column: int) -> DataError:
    return DataError(f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte {column} of the line")
