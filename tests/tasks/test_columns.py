from __future__ import annotations

from types import SimpleNamespace

import datasets
import pytest

from reuselib.data import Splits
from reuselib.errors import DataError
from reuselib.tasks import columns


def splits(train: list, test: list) -> Splits:
    return Splits.of([{"label": value} for value in train], [{"label": value} for value in test])


def test_a_column_is_the_same_from_a_list_and_a_dataset():
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]

    assert columns.column(rows, "b") == ["x", "y"]
    assert columns.column(datasets.Dataset.from_list(rows), "b") == ["x", "y"]


def test_whole_numbers_keep_their_order_as_labels():
    assert columns.find_labels(splits([10, 9, 2, 10], [2]), "label", None) == ("2", "9", "10")


def test_texts_are_sorted_as_labels():
    assert columns.find_labels(splits(["b", "a"], ["a"]), "label", None) == ("a", "b")


def test_truth_values_are_labels():
    assert columns.find_labels(splits([True, False], [True]), "label", None) == ("False", "True")


def test_a_label_of_the_test_rows_only_is_named():
    with pytest.raises(DataError, match="'c' occurs in 'test' but is not in the training rows"):
        columns.find_labels(splits(["a", "b"], ["c"]), "label", None)


def test_given_labels_keep_their_order_and_must_cover_the_rows():
    assert columns.find_labels(splits(["a", "b"], ["a"]), "label", ("b", "a")) == ("b", "a")
    with pytest.raises(DataError, match="not given in `labels`") as caught:
        columns.find_labels(splits(["good", "bad"], ["bad"]), "label", ("godo", "bad"))
    assert "did you mean 'godo'" in caught.value.fix


def test_one_label_is_too_few():
    with pytest.raises(DataError, match="'a'") as caught:
        columns.find_labels(splits(["a", "a"], ["a"]), "label", None)
    assert "two" in caught.value.expected


@pytest.mark.parametrize("value", [None, 0.5])
def test_what_is_no_label_is_named_with_its_row(value):
    with pytest.raises(DataError, match="row 1 of 'train', column 'label'"):
        columns.find_labels(splits(["a", value], ["a"]), "label", None)


def test_many_labels_need_lists():
    with pytest.raises(DataError, match="row 0 of 'train'") as caught:
        columns.find_labels(splits(["ab"], ["ab"]), "label", None, many=True)
    assert "single_label" in caught.value.fix


def test_a_missing_column_names_the_nearest():
    with pytest.raises(DataError, match="no column 'lable'") as caught:
        columns.require_columns(splits(["a"], ["b"]), ["lable"])
    assert caught.value.fix == "did you mean 'label'?"


@pytest.mark.parametrize("value", [None, "x", float("nan"), True])
def test_a_number_must_be_a_finite_number(value):
    rows = [{"y": 1.0}, {"y": value}]
    given = SimpleNamespace(train=rows, test=rows, validation=None)

    with pytest.raises(DataError, match="row 1 of 'train'"):
        columns.require_numbers(given, "y")


def test_the_matrix_of_labels_marks_those_of_the_row():
    matrix = columns.label_matrix([["a", "c"], []], ("a", "b", "c"))

    assert [row.tolist() for row in matrix] == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_an_unknown_label_names_the_nearest():
    with pytest.raises(DataError, match="'goood' is unknown") as caught:
        columns.label_indices(["goood"], ("bad", "good"))
    assert caught.value.fix == "did you mean 'good'?"
