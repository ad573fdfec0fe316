"""A source is known by its name alone."""

import pytest

from reuselib.data.sources import Source, public_source, source_kind
from reuselib.errors import DataError, SourceError


@pytest.mark.parametrize(
    ("source", "kind", "public"),
    [
        ("sample:senses", "sample", "sample:senses"),
        ("imdb", "hub", "imdb"),
        ("nyu-mll/glue", "hub", "nyu-mll/glue"),
        ("rows.jsonl", "file", "file:rows.jsonl"),
        ("data/rows.csv", "file", "file:rows.csv"),
        ("./rows", "file", "file:rows"),
        ("/secret/place/rows/", "file", "file:rows"),
        ("/secret/place/../rows.parquet", "file", "file:rows.parquet"),
        ("~/rows.tsv", "file", "file:rows.tsv"),
        ("file:rows.jsonl", "file", "file:rows.jsonl"),
        ("imagefolder:/secret/photos", "imagefolder", "imagefolder:photos"),
    ],
)
def test_kind_and_public_name_follow_from_what_is_written(source, kind, public):
    assert source_kind(source) == kind
    assert public_source(source) == public


def test_a_missing_split_names_the_nearest():
    source = Source.open("sample:senses")

    with pytest.raises(DataError, match="did you mean 'train'"):
        source.rows("trian")


@pytest.mark.parametrize("source", ["./nowhere", "imagefolder:./nowhere"])
def test_a_missing_folder_is_refused(source):
    with pytest.raises(SourceError, match="there is no folder"):
        Source.open(source)


def test_only_the_splits_that_are_asked_for_are_read(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"a": 1}')
    (tmp_path / "test.jsonl").write_text("broken")

    source = Source.open(str(tmp_path))

    assert source.rows("train") == [{"a": 1}]
    with pytest.raises(DataError, match=r"test.jsonl:1"):
        source.rows("test")
