"""Rows in whatever form they come: lists of mappings, a `datasets.Dataset`, or made on access."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from datasets import Dataset

    from reuselib.task import Rows


@dataclass(frozen=True)
class Encoded:
    """Stands for the content of an encoded file, such as a JPEG, when a row is hashed."""

    data: bytes


class LazyRows(Sequence[Mapping[str, Any]]):
    """Rows that are made on access, such as images in files."""

    @abstractmethod
    def encoded(self) -> Iterator[Mapping[str, Any]]:
        """Every row as it is hashed: what would be decoded is an `Encoded`."""

    @abstractmethod
    def select(self, indices: Sequence[int]) -> LazyRows:
        """The rows at `indices`, still lazy."""


def is_dataset(rows: object) -> TypeGuard[Dataset]:
    """Whether `rows` is a `datasets.Dataset`; does not import that library to find out."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(rows, library.Dataset)


def take(rows: Rows, indices: Sequence[int]) -> Rows:
    """The rows at `indices`, without decoding or copying what they hold."""
    if isinstance(rows, LazyRows) or is_dataset(rows):
        chosen: Any = rows.select(indices)  # A Dataset is a sequence, but does not say so.
        return chosen
    return [rows[index] for index in indices]


def plain(rows: Rows) -> Iterator[Mapping[str, Any]]:
    """Every row as it is hashed: images that come from an encoded file stay encoded."""
    if is_dataset(rows):
        return _dataset_rows(rows)
    return rows.encoded() if isinstance(rows, LazyRows) else iter(rows)


def named_classes(rows: Rows) -> Rows:
    """A Dataset with the names of classes in place of their numbers; other rows as they are.

    Only the Dataset knows the names: once rows are plain values, label 1 would never again be
    called `positive`.
    """
    if not is_dataset(rows):
        return rows
    import datasets

    named: Any = rows
    for column, feature in dict(rows.features).items():
        if isinstance(feature, datasets.ClassLabel):
            # -1 is how test sets without labels say so.
            numbers = named.with_format(None)[column]
            names = [None if n is None or n < 0 else feature.int2str(n) for n in numbers]
            text = datasets.Value("string")
            named = named.remove_columns(column).add_column(column, names, feature=text)
    return named.select_columns(rows.column_names)


def _dataset_rows(dataset: Dataset) -> Iterator[Mapping[str, Any]]:
    import datasets

    images = [k for k, v in dataset.features.items() if isinstance(v, datasets.Image)]
    dataset = dataset.with_format(None)
    for column in images:
        dataset = dataset.cast_column(column, datasets.Image(decode=False))
    # By batches, because asking a Dataset for one row after the other is many times as slow.
    batch: Any
    for batch in dataset.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            for column in images:
                row[column] = _encoded_image(row[column])
            yield row


def _encoded_image(value: Mapping[str, Any] | None) -> Encoded | None:
    if value is None:
        return None
    if value["bytes"] is not None:
        return Encoded(value["bytes"])
    with open(value["path"], "rb") as file:
        return Encoded(file.read())
