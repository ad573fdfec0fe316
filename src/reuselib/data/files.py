"""Rows from files: jsonl, json, csv, tsv and parquet. Every fault names the file and the line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import DataError, SourceError

if TYPE_CHECKING:
    from reuselib.task import Rows

_INT = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_BOOL = {"true": True, "True": True, "false": False, "False": False}
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def read_file(path: Path) -> list[dict[str, Any]]:
    """The rows of one file. A column that some rows lack is None there.

    Raises:
        SourceError: there is no such file, or it cannot be read.
        DataError: its name ends in no known way, or its content is not what the name says.
    """
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"'{path.name}' is not a kind of file that can be read",
            expected=f"a name that ends in {', '.join(FORMATS)}",
            fix="convert the file",
        )
    try:
        rows = reader(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    columns = dict.fromkeys(column for row in rows for column in row)
    if all(len(row) == len(columns) for row in rows):
        return rows
    return [{column: row.get(column) for column in columns} for row in rows]


def folder_tables(folder: Path) -> Mapping[str, Callable[[], Rows]]:
    """The files of a folder by split: `test.csv`, or parts `test-00000-of-00002.csv`."""
    if not folder.is_dir():
        raise _missing(folder, "folder")
    shards: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in FORMATS and not file.name.startswith("."):
            shards.setdefault(_SHARD.sub("", file.stem), []).append(file)
    if not shards:
        raise SourceError(
            f"no data files in the folder '{folder}'",
            expected=f"one file a split, such as train.jsonl and test.jsonl ({', '.join(FORMATS)})",
            fix="name the files by split, or write `imagefolder:` in front of a folder of images",
        )
    for name, files in shards.items():
        if len(files) > 1 and any(not _SHARD.search(file.stem) for file in files):
            raise DataError(
                f"several files claim the split '{name}': {', '.join(f.name for f in files)}",
                expected="one file a split, or parts such as train-00000-of-00002.parquet",
                fix="remove all but one",
            )
    return {name: _joined(files) for name, files in shards.items()}


def _joined(files: Sequence[Path]) -> Callable[[], Rows]:
    return lambda: [row for file in files for row in read_file(file)]


def _jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            rows.append(_json_row(path, number, line))
    return rows


def _json_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = _parse(line)
    except (ValueError, RecursionError) as error:
        raise _bad_line(path, number, str(error) or "nested too deeply") from None
    if not isinstance(row, dict):
        raise _bad_line(path, number, f"a {type(row).__name__} instead of an object")
    return row


def _json(path: Path) -> list[dict[str, Any]]:
    try:
        rows = _parse(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"'{path.name}' is not JSON: {error}",
            expected="a list of objects",
            fix="correct the file; one object a line is called .jsonl",
        ) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"'{path.name}' does not hold a list of objects",
            expected='[{"text": "good", "label": 1}, ...]',
            fix="put the rows into one list at the top",
        )
    return rows


def _parse(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{repeated}' is there twice")
    return values


def _constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON; a missing value is null")


def _csv(path: Path, delimiter: str = ",") -> list[dict[str, Any]]:
    """Rows with typed columns: numbers or true/false where every value is one, otherwise text.

    `007` stays text. An empty field is None in a typed column and empty text in others.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _bad_line(path, line, f"byte {data[error.start]:#04x} is not UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    table: list[list[str]] = []
    try:
        header = next(reader, [])
        repeated = [name for name in header if header.count(name) > 1]
        if repeated:
            raise _bad_line(path, 1, f"the column '{repeated[0]}' is there twice")
        for fields in reader:
            if fields and len(fields) != len(header):
                what = f"{len(fields)} fields where the header has {len(header)}"
                raise _bad_line(path, reader.line_num, what)
            if fields:
                table.append(fields)
    except csv.Error as error:
        raise _bad_line(path, reader.line_num, str(error)) from None
    columns = [_typed(column) for column in zip(*table, strict=True)]
    return [dict(zip(header, values, strict=True)) for values in zip(*columns, strict=True)]


def _tsv(path: Path) -> list[dict[str, Any]]:
    return _csv(path, delimiter="\t")


def _typed(column: Iterable[str]) -> Sequence[Any]:
    column = list(column)
    filled = [value for value in column if value]
    convert: Callable[[str], Any]
    if not filled:
        return column
    if all(value in _BOOL for value in filled):
        convert = _BOOL.__getitem__
    elif all(_INT.fullmatch(value) for value in filled):
        convert = int
    elif all(_INT.fullmatch(value) or _FLOAT.fullmatch(value) for value in filled):
        convert = float
    else:
        return column
    return [convert(value) if value else None for value in column]


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            return file.read().to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(
            f"'{path.name}' is not a parquet file: {error}",
            expected="a parquet file with one row for each example",
            fix="write the file again",
        ) from error


def _bad_line(path: Path, number: int, what: str) -> DataError:
    return DataError(
        f"{path.name}:{number}: {what}",
        expected=f"a row as {path.suffix} files have it, in UTF-8",
        fix="correct this line, or remove it",
    )


def _unreadable(path: Path, error: OSError) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return _missing(path, "file")
    return SourceError(
        f"cannot read '{path}': {error.strerror or error}",
        expected="a file that this user may read",
        fix="check the path and its permissions",
    )


def _missing(path: Path, kind: str) -> SourceError:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=1)
    return SourceError(
        f"there is no {kind} '{path}'",
        expected=f"an existing {kind}; relative paths start at the current folder",
        fix=f"did you mean '{path.parent / near[0]}'?" if near else "check the path",
    )


FORMATS: Mapping[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
"""What reads a file, by the end of its name."""
