from __future__ import annotations

import numpy as np
import pytest

from reuselib.derivation.sharing import Shelf, name_of, read_examples, write_examples

EXAMPLES = [
    {"input_ids": np.arange(3, dtype=np.int32), "labels": 1, "score": 0.25},
    {"input_ids": np.arange(0, dtype=np.int32), "labels": 0, "score": 1.0},
    {"input_ids": np.arange(7, dtype=np.int32), "labels": 2, "score": -1.0},
]


def test_rows_read_back_are_the_same_in_value_type_and_order(tmp_path):
    assert write_examples(tmp_path / "rows", EXAMPLES)

    found = read_examples(tmp_path / "rows")

    assert len(found) == 3
    for one, other in zip(found, EXAMPLES, strict=True):
        assert list(one) == list(other)
        assert np.array_equal(one["input_ids"], other["input_ids"])
        assert one["input_ids"].dtype == np.int32
        assert (one["labels"], type(one["labels"])) == (other["labels"], int)
        assert (one["score"], type(one["score"])) == (other["score"], float)
    assert np.array_equal(found[-1]["input_ids"], EXAMPLES[-1]["input_ids"])
    assert [len(each["input_ids"]) for each in found[1:]] == [0, 7]


def test_arrays_of_any_shape_and_numbers_as_arrays(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"image": rng.random((2, size, 3), dtype=np.float32), "target": np.array(size)}
        for size in (1, 4)
    ]

    assert write_examples(tmp_path / "rows", rows)

    for one, other in zip(read_examples(tmp_path / "rows"), rows, strict=True):
        assert np.array_equal(one["image"], other["image"])
        assert one["target"].shape == ()
        assert one["target"] == other["target"]


def test_what_is_read_may_be_changed(tmp_path):
    write_examples(tmp_path / "rows", EXAMPLES)
    found = read_examples(tmp_path / "rows")

    found[0]["input_ids"][0] = 9

    assert found[0]["input_ids"][0] == 0


@pytest.mark.parametrize(
    "rows",
    [
        [],
        (EXAMPLES[0],),
        [{"text": "words"}],
        [{"a": 1}, {"b": 1}],
        [{"a": 1}, {"a": 1.5}],
        [{"a": np.zeros(2)}, {"a": np.zeros((2, 2))}],
        [{"a": np.zeros(2)}, {"a": np.zeros(2, np.float32)}],
        [{"a": np.array(["x"], dtype=object)}],
    ],
    ids=["none", "lazy", "text", "inputs", "types", "dimensions", "dtypes", "objects"],
)
def test_other_rows_are_not_written(rows, tmp_path):
    assert not write_examples(tmp_path / "rows", rows)
    assert not (tmp_path / "rows").exists()


def test_a_shelf_knows_rows_by_their_content(tmp_path):
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    shelf = Shelf(tmp_path)
    shelf.place([(rows, EXAMPLES)])
    shelf.place([(rows, EXAMPLES)])

    found = shelf.fetch([dict(row) for row in rows])

    assert found is not None
    assert found[2]["labels"] == 2
    assert shelf.fetch(rows[:2]) is None
    assert name_of(rows) != name_of(rows[:2])
