"""Splits are checked, digested and held out by content."""

import pytest

from reuselib.data import Splits
from reuselib.data.splits import hold_out
from reuselib.errors import DataError


def rows(count, start=0):
    return [{"text": f"row {index}", "label": index % 2} for index in range(start, start + count)]


def test_a_tenth_is_held_out_when_there_is_no_test_split():
    splits = Splits.of(rows(2000))

    assert 150 < len(splits.test) < 250
    assert sorted(row["text"] for row in [*splits.train, *splits.test]) == sorted(
        row["text"] for row in rows(2000)
    )
    assert splits.columns == ("text", "label")


def test_a_row_stays_on_its_side_when_others_come_and_order_changes():
    _, few = hold_out(rows(300), 0.1, purpose="test")
    _, many = hold_out(rows(900)[::-1], 0.1, purpose="test")

    known = {row["text"] for row in rows(300)}
    assert {row["text"] for row in few} == {row["text"] for row in many} & known


def test_equal_rows_stay_together():
    rest, held = hold_out(rows(200) * 3, 0.5, purpose="test")

    assert not {row["text"] for row in rest} & {row["text"] for row in held}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_neither_side_is_empty_however_few_rows(count):
    for fraction in (0.001, 0.999):
        rest, held = hold_out(rows(count), fraction, purpose="test")
        assert len(rest) >= 1
        assert len(held) >= 1


def test_nothing_can_be_held_out_of_equal_rows():
    with pytest.raises(DataError, match="no two of 3 rows are different"):
        Splits.of(rows(1) * 3)


def test_validation_is_held_out_of_what_the_test_split_left():
    splits = Splits.of(rows(2000))

    held = splits.with_validation()

    assert held.validation is not None
    assert 140 < len(held.validation) < 230
    assert len(held.train) + len(held.validation) == len(splits.train)
    assert held.test == splits.test
    assert held.digest == splits.with_validation().digest != splits.digest
    assert held.with_validation() is held


def test_digest_is_of_content_and_purpose():
    one, two = rows(10), rows(10, start=10)

    assert Splits.of(one, two).digest == Splits.of(list(one), tuple(two)).digest
    assert Splits.of(one, two).digest != Splits.of(two, one).digest
    assert Splits.of(one, two).digest != Splits.of(one, two, rows(3)).digest


def test_a_dataset_and_a_list_of_the_same_rows_are_the_same_data():
    datasets = pytest.importorskip("datasets")

    splits = Splits.of(datasets.Dataset.from_list(rows(500)))

    assert isinstance(splits.test, datasets.Dataset)
    assert splits.digest == Splits.of(rows(500)).digest


def test_facts_count_rows_and_test_rows_that_were_trained_on():
    splits = Splits.of(rows(10), rows(4, start=8))

    assert splits.facts["splits"]["train"]["rows"] == 10
    assert splits.facts["splits"]["test"]["rows"] == 4
    assert splits.facts["test_rows_in_train"] == 2


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([], rows(1), "split 'train' is empty"),
        (rows(1), [], "split 'test' is empty"),
        ([*rows(2), {"text": "x"}], rows(1), "row 2 of split 'train' has other columns"),
        (["text"], rows(1), "row 0 of split 'train'"),
        ("text", rows(1), "split 'train' is a str"),
        (iter(rows(2)), rows(1), "expected: a list of mappings"),
        (rows(4), [{"text": "x", "label": "1"}], "column 'label' holds str in split 'test'"),
    ],
)
def test_unfit_rows_are_refused(train, test, message):
    with pytest.raises(DataError) as caught:
        Splits.of(train, test)
    assert message in str(caught.value)


def test_columns_are_those_of_every_split():
    splits = Splits.of([{"a": 1, "b": 2}, {"a": 2, "b": 2}], [{"b": 1, "c": 3}])

    assert splits.columns == ("b",)
