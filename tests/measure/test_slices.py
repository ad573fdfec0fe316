from __future__ import annotations

import pytest

from reuselib.data.rows import Encoded, LazyRows
from reuselib.measure.slices import slices
from reuselib.tasks.module import ModuleTask
from reuselib.tasks.text_classification import TextClassification

TASK = TextClassification(labels=("bad", "good"))


def rows(**columns):
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def test_lengths_part_the_rows_into_thirds():
    found = slices([], TASK, (), [5, 1, 9, 2, 8, 3])

    assert found == {
        "length=short": [1, 3],
        "length=medium": [0, 5],
        "length=long": [2, 4],
    }


def test_rows_of_one_length_stay_together_and_one_length_is_no_slice():
    assert slices([], TASK, (), [4, 4, 4, 4, 9, 9]) == {
        "length=medium": [0, 1, 2, 3],
        "length=long": [4, 5],
    }
    assert slices([], TASK, (), [4, 4, 4]) == {}
    assert slices([], TASK, (), None) == {}


def test_a_column_that_the_task_does_not_read_parts_them_by_value():
    given = rows(
        text=["a", "b", "a"],
        label=["bad", "good", "bad"],
        source=["web", "book", "web"],
        year=[1, 2, 1],
    )

    assert slices(given, TASK, list(given[0]), None) == {
        "source=book": [1],
        "source=web": [0, 2],
        "year=1": [0, 2],
        "year=2": [1],
    }


@pytest.mark.parametrize(
    "values",
    [
        ["same"] * 30,
        [str(number) for number in range(30)],
        [number / 7 for number in range(30)],
        [[1]] * 30,
    ],
    ids=["one value", "too many", "fractions", "lists"],
)
def test_other_columns_do_not(values):
    assert slices(rows(text=["x"] * 30, extra=values), TASK, ("text", "extra"), None) == {}


def test_a_missing_value_is_a_value():
    given = rows(text=["x"] * 3, extra=[None, "a", None])

    assert slices(given, TASK, ("text", "extra"), None)["extra=None"] == [0, 2]


def test_every_column_that_a_task_names_is_left_out():
    import torch

    task = ModuleTask(
        network=torch.nn.Identity, criterion=torch.nn.functional.mse_loss, arguments=("a", "b")
    )
    given = rows(a=[1, 2], b=[3, 4], y=[5, 6], c=[7, 8])

    assert slices(given, task, list(given[0]), None) == {"c=7": [0], "c=8": [1]}


class Photos(LazyRows):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise AssertionError("decoded")

    def encoded(self):
        return iter({"image": Encoded(b"x"), "camera": name} for name in ("a", "b", "a"))

    def select(self, indices): ...


def test_images_are_not_decoded():
    from reuselib.tasks.image_classification import ImageClassification

    task = ImageClassification(labels=("cat", "dog"))

    found = slices(Photos(), task, ("image", "camera"), None)

    assert found == {"camera=a": [0, 2], "camera=b": [1]}
