"""Slices mean what Python's mean, never less than the recipe says."""

import pytest

from reuselib.data.parts import Part
from reuselib.errors import DataError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", range(25)),
        ("train[:]", range(25)),
        ("train[:10]", range(10)),
        ("train[5:7]", range(5, 7)),
        ("train[-3:]", range(22, 25)),
        ("train[:-3]", range(22)),
        ("train[10%:20%]", range(3, 5)),
        ("train[-20%:]", range(20, 25)),
        ("train[50%:20]", range(13, 20)),
        ("./a b/more.csv[:1]", range(1)),
    ],
)
def test_slices_name_rows(text, expected):
    assert Part.parse(text).indices(25) == expected


def test_adjoining_shares_cover_every_row_once():
    parts = [Part.parse(f"train[{low}%:{low + 7}%]") for low in range(0, 98, 7)]
    parts.append(Part.parse("train[98%:]"))

    rows = [row for part in parts for row in part.indices(1237)]

    assert rows == list(range(1237))


@pytest.mark.parametrize(
    "text", ["train[", "train[1]", "train[a:b]", "[:3]", "", "train[::2]", "a[:1.5]"]
)
def test_what_is_not_a_slice_is_refused(text):
    with pytest.raises(DataError, match="does not name a split"):
        Part.parse(text)


@pytest.mark.parametrize(
    "text", ["train[:26]", "train[30:]", "train[5:5]", "train[-26:]", "train[9:3]"]
)
def test_a_slice_beyond_the_rows_is_refused(text):
    with pytest.raises(DataError, match="has 25 rows"):
        Part.parse(text).indices(25)


def test_a_part_is_written_as_it_was_read():
    for text in ("train", "train[:10]", "train[10%:20%]", "./x.csv[-3:]"):
        assert str(Part.parse(text)) == text
