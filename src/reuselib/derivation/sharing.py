"""Encoded rows that one process hands to the others on disk, so that a tokenizer runs once however many there are.

Plain arrays, one file each, which are read as they are asked for: nobody holds more of them than it looks at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from reuselib.data.digest import row_hashes, split_digest
from reuselib.lineage.disk import writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reuselib.task import Examples, Rows

INDEX = "examples.json"


@dataclass(frozen=True)
class Shelf:
    """Where the first process puts what it encoded, and the others find it."""

    folder: Path

    def place(self, encoded: Iterable[tuple[Rows, Examples]]) -> None:
        """Write what is not there yet."""
        for rows, examples in encoded:
            if isinstance(examples, list) and not (target := self.folder / name_of(rows)).exists():
                write_examples(target, examples)

    def fetch(self, rows: Rows) -> Examples | None:
        """These rows, encoded; None if they are not here."""
        target = self.folder / name_of(rows)
        return read_examples(target) if (target / INDEX).exists() else None


def name_of(rows: Rows) -> str:
    """What the rows are, the same in every process: a digest of their content."""
    return split_digest(tuple(rows[0]), row_hashes(rows))


def write_examples(folder: Path, examples: Examples) -> bool:
    """Write encoded rows into a new folder; False, and nothing is written, if they are not worth it.

    That is so where they are encoded on access, such as images, and where they hold something else than arrays and
    numbers, or not the same in each row.

    Raises:
        StoreError: they cannot be written.
    """
    columns = _columns(examples) if isinstance(examples, list) and examples else None
    if columns is None:
        return False
    with writing(folder):
        folder.mkdir(parents=True)
        for number, column in enumerate(columns):
            column.write(folder, number)
        told = [{"name": each.name, "number": each.is_number} for each in columns]
        (folder / INDEX).write_text(json.dumps({"rows": len(examples), "columns": told}))
    return True


def read_examples(folder: Path) -> Examples:
    """What `write_examples` wrote, each row read when it is asked for; the values and their types are the same."""
    index = json.loads((folder / INDEX).read_text())
    columns = [
        Written.read(folder, number, each["name"], is_number=each["number"])
        for number, each in enumerate(index["columns"])
    ]
    return Read(columns, index["rows"])


@dataclass(frozen=True)
class Column:
    """One input of all rows."""

    name: str
    values: Sequence[NDArray[Any]]
    is_number: bool
    """Plain numbers of Python, not arrays."""

    def write(self, folder: Path, number: int) -> None:
        """All values one after another, and their shapes."""
        import numpy as np

        shapes = np.array([value.shape for value in self.values], dtype=np.int64)
        np.save(folder / f"{number}.shapes.npy", shapes, allow_pickle=False)
        values = np.concatenate([value.ravel() for value in self.values])
        np.save(folder / f"{number}.values.npy", values, allow_pickle=False)


@dataclass(frozen=True)
class Written:
    """A column on disk."""

    name: str
    values: NDArray[Any]
    shapes: NDArray[np.int64]
    starts: NDArray[np.int64]
    is_number: bool

    @classmethod
    def read(cls, folder: Path, number: int, name: str, *, is_number: bool) -> Written:
        """Map it into memory."""
        import numpy as np

        shapes = np.load(folder / f"{number}.shapes.npy", allow_pickle=False)
        values = np.load(folder / f"{number}.values.npy", mmap_mode="r", allow_pickle=False)
        starts = np.concatenate([[0], shapes.prod(axis=1, dtype=np.int64).cumsum()])
        return cls(name, values, shapes, starts, is_number)

    def __getitem__(self, row: int) -> Any:
        import numpy as np

        value = np.array(self.values[self.starts[row] : self.starts[row + 1]])
        return value.item() if self.is_number else value.reshape(self.shapes[row])


@dataclass(frozen=True)
class Read(Sequence[Mapping[str, Any]]):
    """Encoded rows on disk."""

    columns: Sequence[Written]
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(self.num_rows))]
        row = range(self.num_rows)[at]
        return {column.name: column[row] for column in self.columns}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[row] for row in range(self.num_rows))


def _columns(examples: Sequence[Mapping[str, Any]]) -> list[Column] | None:
    """The rows by input, if all have the same ones, each of one type and with as many dimensions."""
    import numpy as np

    names = list(examples[0])
    if any(list(example) != names for example in examples):
        return None
    columns: list[Column] = []
    for name in names:
        values = [example[name] for example in examples]
        kinds = {type(value) for value in values}
        is_number = kinds <= {bool} or kinds <= {int} or kinds <= {float}
        if not is_number and kinds != {np.ndarray}:
            return None
        arrays = [np.asarray(value) for value in values]
        if not _alike(arrays):
            return None
        columns.append(Column(name, arrays, is_number))
    return columns


def _alike(arrays: Sequence[NDArray[Any]]) -> bool:
    same = all(a.dtype == b.dtype and a.ndim == b.ndim for a, b in pairwise(arrays))
    return same and not arrays[0].dtype.hasobject
