"""The rows a derivation sees, by purpose, and what their content is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reuselib.data.digest import data_digest, row_hashes, split_digest
from reuselib.data.rows import is_dataset, named_classes, take
from reuselib.errors import DataError

if TYPE_CHECKING:
    from typing import Self

    from reuselib.adapter import Json
    from reuselib.task import Rows

HOLDOUT = 0.1
"""The fraction of the training rows that is held out when there is no split for a purpose."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows by purpose, with the digest of their content. Made by `Data.load` or `Splits.of`."""

    train: Rows
    test: Rows
    validation: Rows | None
    source: str
    """Where the rows came from, as a manifest may say it: no absolute path, no host."""
    digest: str
    """64 hex digits over the content of all splits, whatever container it came in (see
    `data.digest`)."""
    columns: tuple[str, ...]
    """Columns that every split has, in the order of the training rows."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """What else a manifest records: rows and digest of each split, versions of packages, revision,
    overlap."""

    @classmethod
    def of(cls, train: Rows, test: Rows | None = None, validation: Rows | None = None) -> Self:
        """Rows that are already in memory: lists of mappings, or `datasets.Dataset`.

        Without `test`, a tenth of `train` is held out by the hash of the row.
        """
        _require_rows("train", train)
        train = named_classes(train)
        if test is None:
            train, test = hold_out(train, HOLDOUT, purpose="test")
        rows = {"train": train, "test": named_classes(test)}
        if validation is not None:
            rows["validation"] = named_classes(validation)
        return cls.build(rows, source="memory:", facts={})

    @classmethod
    def build(cls, rows: Mapping[str, Rows], *, source: str, facts: Mapping[str, Json]) -> Self:
        """Check the rows of every split, digest them and gather the facts.

        Raises:
            DataError: a split is empty, rows differ in their columns, or splits differ in the type
                of a column.
        """
        columns = {name: _columns(name, split) for name, split in rows.items()}
        shared = tuple(c for c in columns["train"] if all(c in other for other in columns.values()))
        _require_same_types(rows, shared)
        hashes = {name: row_hashes(split) for name, split in rows.items()}
        digests = {name: split_digest(columns[name], hashes[name]) for name in rows}
        seen = set(hashes["train"])
        own: dict[str, Json] = {
            "splits": {
                name: {"rows": len(hashes[name]), "digest": digests[name]} for name in sorted(rows)
            },
            # A test row that was also trained on measures memory: the record says how many.
            "test_rows_in_train": sum(row in seen for row in hashes["test"]),
        }
        return cls(
            train=rows["train"],
            test=rows["test"],
            validation=rows.get("validation"),
            source=source,
            digest=data_digest(digests),
            columns=shared,
            facts={**facts, **own},
        )

    def with_validation(self, fraction: float = HOLDOUT) -> Self:
        """These splits with a validation split, held out of the training rows if there was none.

        Which rows are held out depends on nothing but their content.
        """
        if self.validation is not None:
            return self
        train, validation = hold_out(self.train, fraction, purpose="validation")
        rows = {"train": train, "test": self.test, "validation": validation}
        return type(self).build(rows, source=self.source, facts=self.facts)


def required(splits: Splits | None) -> Splits:
    """The rows of a step that cannot do without.

    Raises:
        DataError: the recipe names no data.
    """
    if splits is None:
        raise DataError(
            "this step needs rows, but the recipe has no data",
            expected="`data` with a training and a test split",
            fix="add `data: {source: ...}`",
        )
    return splits


def hold_out(rows: Rows, fraction: float, *, purpose: str) -> tuple[Rows, Rows]:
    """Part rows by the hash of their content: (rest, held out).

    Equal rows stay together, and a row stays where it is when others come or go. Every purpose
    reads its own part of the hash, so that a validation split can still be held out of what a test
    split has left.

    Raises:
        DataError: there are not two different rows.
    """
    offset = {"test": 0, "validation": 8}[purpose]
    places = [int.from_bytes(row[offset : offset + 8]) for row in row_hashes(rows)]
    low, high = min(places, default=0), max(places, default=0)
    if low == high:
        raise DataError(
            f"cannot hold out a {purpose} split: no two of {len(places)} rows are different",
            expected="at least two different training rows",
            fix=f"give more rows, or a {purpose} split",
        )
    # A handful of rows may all fall on one side; the lowest is then held out and the highest stays.
    limit = min(max(round(fraction * 2**64), low + 1), high)
    rest = [index for index, place in enumerate(places) if place >= limit]
    held = [index for index, place in enumerate(places) if place < limit]
    return take(rows, rest), take(rows, held)


def _require_rows(name: str, rows: Rows) -> None:
    if isinstance(rows, str) or not (isinstance(rows, Sequence) or is_dataset(rows)):
        raise DataError(
            f"split '{name}' is a {type(rows).__name__}",
            expected="a list of mappings, or a `datasets.Dataset` (not an IterableDataset)",
            fix="convert it, for instance with `Dataset.from_pandas` or `list`",
        )
    if not len(rows):
        raise DataError(
            f"split '{name}' is empty",
            expected="at least one row",
            fix="check the file or the slice that it is taken from",
        )


def _columns(name: str, rows: Rows) -> tuple[str, ...]:
    _require_rows(name, rows)
    if not isinstance(rows, list | tuple):
        return tuple(rows[0])
    first = rows[0].keys() if isinstance(rows[0], Mapping) else None
    for index, row in enumerate(rows):
        if first is None or not isinstance(row, Mapping) or row.keys() != first:
            columns = sorted(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
            raise DataError(
                f"row {index} of split '{name}' has other columns than the first row: {columns}",
                expected=f"a mapping with {sorted(map(str, first or ()))}",
                fix="give every row the same columns, with None where there is no value",
            )
    return tuple(first or ())


def _require_same_types(rows: Mapping[str, Rows], columns: Sequence[str]) -> None:
    """A label that is text in one split and a number in the other would never match."""
    first = {name: _first_values(split, columns) for name, split in rows.items()}
    for name in rows:
        for column in columns:
            here, there = first[name].get(column), first["train"].get(column)
            if here is None or there is None or isinstance(here, str) == isinstance(there, str):
                continue
            raise DataError(
                f"column '{column}' holds {type(here).__name__} in split '{name}' ({here!r:.40}) "
                f"but {type(there).__name__} in 'train' ({there!r:.40})",
                expected="one type in all splits",
                fix="write it the same way in all files; csv does not keep types, jsonl does",
            )


def _first_values(rows: Rows, columns: Sequence[str]) -> dict[str, Any]:
    """The first value of each column that is there, looking at the first rows only."""
    values: dict[str, Any] = {}
    for index in range(min(len(rows), 20)):
        for column, value in rows[index].items():
            if column in columns and value is not None:
                values.setdefault(column, value)
        if len(values) == len(columns):
            break
    return values
