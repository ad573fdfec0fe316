"""Reading columns and labels out of rows, with errors that name the row. No torch here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from reuselib.data.rows import LazyRows, is_dataset
from reuselib.errors import DataError

if TYPE_CHECKING:
    from reuselib.data import Splits
    from reuselib.task import Rows


def column(rows: Rows, name: str) -> list[Any]:
    """All values of one column; images of a column are better read row by row."""
    # A `datasets.Dataset` hands out a column at once, far faster than row by row.
    if is_dataset(rows):
        return list(rows[name])
    # Lazy rows would decode their images only to be asked for a label.
    return [row[name] for row in (rows.encoded() if isinstance(rows, LazyRows) else rows)]


def has_column(rows: Rows, name: str) -> bool:
    """Whether there is such a column; rows to predict on have no targets."""
    if is_dataset(rows):
        return name in rows.column_names
    return name in next(iter(rows.encoded() if isinstance(rows, LazyRows) else rows), ())


def named_splits(splits: Splits) -> Iterator[tuple[str, Rows]]:
    """The splits that are there, training rows first."""
    yield "train", splits.train
    if splits.validation is not None:
        yield "validation", splits.validation
    yield "test", splits.test


def require_columns(splits: Splits, names: Iterable[str]) -> None:
    """Check that every split has rows and every column is in all of them.

    Raises:
        DataError: a split is empty or lacks a column.
    """
    names = tuple(names)
    for split, rows in named_splits(splits):
        if len(rows) == 0:
            raise DataError(
                f"the split '{split}' has no rows",
                expected="at least one row in each split",
                fix="check the split expressions and the files of the data",
            )
        present = rows.column_names if is_dataset(rows) else list(rows[0])
        for name in names:
            if name not in present:
                raise DataError(
                    f"the split '{split}' has no column '{name}'",
                    expected=f"one of: {', '.join(map(str, present))}",
                    fix=_nearest(name, [str(column) for column in present]),
                )


def require_text(splits: Splits, name: str) -> None:
    """Check that a column holds strings only.

    Raises:
        DataError: a value is something else, such as null.
    """
    for split, rows in named_splits(splits):
        for number, value in enumerate(column(rows, name)):
            if not isinstance(value, str):
                raise DataError(
                    f"row {number} of '{split}' has {value!r} in the column '{name}'",
                    expected="a string",
                    fix="drop the row, or name the column that holds the text",
                )


def require_numbers(splits: Splits, name: str) -> None:
    """Check that a column holds finite numbers only.

    Raises:
        DataError: a value is something else.
    """
    for split, rows in named_splits(splits):
        for number, value in enumerate(column(rows, name)):
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise DataError(
                    f"row {number} of '{split}' has {value!r} in the column '{name}'",
                    expected="a finite number",
                    fix="drop the row, or name the column that holds the numbers",
                )


def label_name(value: object) -> str:
    """A label as the network's configuration writes it.

    Raises:
        DataError: the value is no label.
    """
    if isinstance(value, (str, bool)):
        return str(value)
    if isinstance(value, Integral):
        return str(int(value))
    raise DataError(
        f"{value!r} is not a label",
        expected="a string, a whole number or a truth value",
        fix="for numbers to be predicted as such, use a task or problem of regression",
    )


def find_labels(
    splits: Splits, name: str, given: Sequence[str] | None, *, many: bool = False
) -> tuple[str, ...]:
    """The labels of the training rows in order, or `given` if all rows agree with it.

    Args:
        splits: the rows.
        name: the column with the labels.
        given: labels fixed by the user.
        many: each row holds a list of labels.

    Raises:
        DataError: a label occurs in the test or validation rows only, or is not among the given.
    """
    values = {
        split: _label_values(rows, name, split, many=many) for split, rows in named_splits(splits)
    }
    labels = tuple(given) if given is not None else _ordered(values["train"])
    if len(labels) < (1 if many else 2):
        raise DataError(
            f"the column '{name}' of the training rows holds {_listed(labels) or 'no label at all'}",
            expected="at least two different labels" if not many else "at least one label",
            fix="check the column and the split",
        )
    for split, seen in values.items():
        unknown = sorted(label_name(value) for value in seen if label_name(value) not in labels)
        if unknown:
            source = "given in `labels`" if given is not None else "in the training rows"
            raise DataError(
                f"the label '{unknown[0]}' occurs in '{split}' but is not {source}",
                expected=f"one of: {_listed(labels)}",
                fix=_nearest(unknown[0], labels),
            )
    return labels


def label_indices(values: Iterable[object], labels: Sequence[str]) -> list[int]:
    """The position of each value among the labels.

    Raises:
        DataError: a value is not among them.
    """
    index = {label: position for position, label in enumerate(labels)}
    try:
        return [index[label_name(value)] for value in values]
    except KeyError as error:
        raise DataError(
            f"the label {error} is unknown to this task",
            expected=f"one of: {_listed(labels)}",
            fix=_nearest(str(error.args[0]), labels),
        ) from None


def label_matrix(values: Iterable[Iterable[object]], labels: Sequence[str]) -> list[Any]:
    """For each row an array over the labels, 1 where the row has the label and 0 elsewhere.

    Raises:
        DataError: a value is not among the labels.
    """
    import numpy as np

    matrix = []
    for row in values:
        hot = np.zeros(len(labels), dtype=np.float32)
        hot[label_indices(row, labels)] = 1.0
        matrix.append(hot)
    return matrix


def _label_values(rows: Rows, name: str, split: str, *, many: bool) -> set[object]:
    found: set[object] = set()
    for number, value in enumerate(column(rows, name)):
        if many and (isinstance(value, (str, bytes)) or not isinstance(value, Iterable)):
            raise DataError(
                f"row {number} of '{split}' has {value!r} in the column '{name}'",
                expected="a list of labels (problem: multi_label)",
                fix="for one label a row, use problem: single_label",
            )
        for item in value if many else (value,):
            try:
                label_name(item)
            except DataError as error:
                raise DataError(
                    f"row {number} of '{split}', column '{name}': {error.what}",
                    expected=error.expected,
                    fix=error.fix,
                ) from None
            found.add(item)
    return found


def _ordered(values: set[object]) -> tuple[str, ...]:
    if all(isinstance(value, Integral) and not isinstance(value, bool) for value in values):
        return tuple(str(number) for number in sorted(int(value) for value in values))  # type: ignore[call-overload]
    return tuple(sorted({label_name(value) for value in values}))


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(f"'{label}'" for label in labels[:20])
    return shown if len(labels) <= 20 else f"{shown} and {len(labels) - 20} more"


def _nearest(wanted: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else "correct the name, or the rows"
