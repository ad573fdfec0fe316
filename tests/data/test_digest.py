"""The digest says what rows are, whatever they came in."""

import datetime
import hashlib

import numpy as np
import pytest

from reuselib.data.digest import data_digest, row_hashes, split_digest
from reuselib.errors import DataError


def test_digests_are_what_the_documentation_says():
    rows = [{"text": "caf\u00e9", "label": 1}, {"label": 0, "text": "tea"}]
    lines = ['{"label":1,"text":"caf\\u00e9"}', '{"label":0,"text":"tea"}']

    hashes = row_hashes(rows)
    split = split_digest(["text", "label"], hashes)

    expected = [hashlib.sha256(line.encode()).hexdigest() for line in lines]
    assert [row.hex() for row in hashes] == expected
    text = 'rowsHash1\n["label","text"]\n' + "".join(f"{row}\n" for row in expected)
    assert split == hashlib.sha256(text.encode()).hexdigest()
    whole = f"dataHash1\n{split}  test\n{split}  train\n"
    digest = data_digest({"train": split, "test": split})
    assert digest == hashlib.sha256(whole.encode()).hexdigest()


@pytest.mark.parametrize("other", [1.0, True, "1", None, [1], {"a": 1}, b"1"])
def test_values_of_different_type_differ(other):
    assert row_hashes([{"x": 1}]) != row_hashes([{"x": other}])


def test_order_of_rows_counts_and_order_of_columns_does_not():
    first, second = {"a": 1, "b": 2}, {"a": 3, "b": 4}
    turned = [{"b": 2, "a": 1}, {"b": 4, "a": 3}]

    assert row_hashes([first, second]) == row_hashes(turned)
    assert row_hashes([first, second]) != row_hashes([second, first])


def test_arrays_count_by_shape_type_and_values_not_by_layout():
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    same = [np.asfortranarray(array), array.astype(">i4")]
    different = [array.reshape(3, 2), array.astype(np.int64), array + 1]

    expected = row_hashes([{"x": array}])

    assert all(row_hashes([{"x": value}]) == expected for value in same)
    assert all(row_hashes([{"x": value}]) != expected for value in different)


def test_numpy_numbers_are_the_numbers_they_hold():
    assert row_hashes([{"x": np.int64(3), "y": np.float64(0.5)}]) == row_hashes(
        [{"x": 3, "y": 0.5}]
    )


def test_text_that_is_not_valid_unicode_and_times_have_a_digest():
    assert len(row_hashes([{"x": "\ud800", "t": datetime.date(2020, 1, 2)}])) == 1


def test_a_value_without_a_fixed_form_is_refused_by_row_and_column():
    with pytest.raises(DataError, match="column 'y' of row 1 holds a object"):
        row_hashes([{"y": 1}, {"y": object()}])


def test_a_dataset_has_the_digest_of_its_rows():
    datasets = pytest.importorskip("datasets")
    rows = [
        {"text": f"row {index}", "label": index % 3, "score": index / 7} for index in range(2500)
    ]

    assert row_hashes(datasets.Dataset.from_list(rows)) == row_hashes(rows)
