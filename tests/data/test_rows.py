"""Rows keep their form when some are taken, and classes their names."""

import io

import pytest

from reuselib.data.digest import row_hashes
from reuselib.data.rows import named_classes, take

datasets = pytest.importorskip("datasets")


def test_take_keeps_a_dataset_a_dataset():
    rows = [{"x": index} for index in range(5)]
    dataset = datasets.Dataset.from_list(rows)

    assert take(rows, [3, 1]) == [{"x": 3}, {"x": 1}]
    assert isinstance(take(dataset, [3, 1]), datasets.Dataset)
    assert list(take(dataset, [3, 1])) == [{"x": 3}, {"x": 1}]


def test_class_columns_hold_names_and_stay_in_place():
    features = datasets.Features(
        {"label": datasets.ClassLabel(names=["bad", "good"]), "text": datasets.Value("string")}
    )
    dataset = datasets.Dataset.from_dict({"label": [1, 0, -1], "text": ["a", "b", "c"]}, features)

    named = named_classes(dataset)

    assert named["label"][:] == ["good", "bad", None]
    assert named.column_names == ["label", "text"]


def test_an_image_counts_by_its_encoded_bytes():
    from PIL import Image

    stored = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(stored, "PNG")
    features = datasets.Features({"image": datasets.Image()})
    first = datasets.Dataset.from_dict({"image": [{"bytes": stored.getvalue()}]}, features)
    again = datasets.Dataset.from_dict({"image": [{"bytes": stored.getvalue()}]}, features)
    other = datasets.Dataset.from_dict({"image": [{"bytes": stored.getvalue() + b" "}]}, features)

    assert row_hashes(first) == row_hashes(again)
    assert row_hashes(first) != row_hashes(other)
