"""Data says where rows come from, and what each split is for."""

import json
import os
from dataclasses import asdict, replace

import pytest

from reuselib.data import Data
from reuselib.errors import DataError, ReuseError, SourceError


def write(path, count, start=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"row {index}", "label": index % 2} for index in range(start, start + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    """Train, validation and test rows in one folder, which is the current one."""
    write(tmp_path / "rows/train.jsonl", 100)
    write(tmp_path / "rows/validation.jsonl", 10, start=100)
    write(tmp_path / "rows/test.jsonl", 20, start=200)
    before = os.getcwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def sizes(splits):
    return len(splits.train), len(splits.validation or ()), len(splits.test)


def test_splits_are_found_by_their_names(folder):
    assert sizes(Data(source="./rows").load()) == (100, 10, 20)


def test_validation_rows_test_when_there_are_no_test_rows(folder):
    (folder / "rows/test.jsonl").unlink()

    splits = Data(source="./rows").load()

    assert sizes(splits) == (100, 0, 10)


def test_one_file_holds_out_a_share_of_its_rows(folder):
    whole = Data(source="./rows/train.jsonl").load()
    half = Data(source="./rows/train.jsonl", holdout=0.5).load()

    assert len(whole.train) + len(whole.test) == 100
    assert 3 <= len(whole.test) <= 20
    assert 35 <= len(half.test) <= 65


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"train": "train[:30]"}, (30, 10, 20)),
        ({"train": "train[:80%]", "test": "train[80%:]"}, (80, 10, 20)),
        ({"test": "validation"}, (100, 0, 10)),
        ({"validation": "validation[:4]"}, (100, 4, 20)),
        ({"train": "validation"}, (10, 0, 20)),
        ({"train": "test"}, (20, 0, 10)),
        ({"test": "./rows/test.jsonl[:5]"}, (100, 10, 5)),
    ],
)
def test_a_recipe_may_say_which_rows_serve_what(folder, options, expected):
    assert sizes(Data(source="./rows", **options).load()) == expected


def test_files_may_be_named_for_each_split(folder):
    data = Data(source="./rows/train.jsonl", test="./rows/test.jsonl")

    splits = data.load()

    assert sizes(splits) == (100, 0, 20)
    assert data.pin(splits) == Data(source="file:train.jsonl", test="file:test.jsonl")


def test_the_digest_does_not_depend_on_where_the_rows_lie(folder):
    write(folder / "elsewhere/other.jsonl", 100)

    one = Data(source="./rows/train.jsonl").load()
    two = Data(source=str(folder / "elsewhere/other.jsonl")).load()

    assert one.digest == two.digest
    assert (one.source, two.source) == ("file:train.jsonl", "file:other.jsonl")


def test_a_pinned_recipe_writes_defaults_out_and_loads_the_same_rows(folder):
    for data in (Data(source="./rows"), Data(source="./rows/train.jsonl"), Data(source="./rows/")):
        splits = data.load()

        pinned = data.pin(splits)

        assert str(folder) not in json.dumps(asdict(pinned))
        os.chdir(folder / "rows" if pinned.source.endswith(".jsonl") else folder)
        assert pinned.load().digest == splits.digest
        assert pinned.pin(splits) == pinned
        os.chdir(folder)
    assert Data(source="./rows/train.jsonl").pin(splits).source == "file:train.jsonl"


def test_data_is_a_plain_hashable_value():
    data = Data(source="sample:senses", train="train[:10]")

    assert hash(data) == hash(replace(data))
    assert Data(**json.loads(json.dumps(asdict(data)))) == data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "sample:sense"}, "did you mean 'sample:senses'?"),
        ({"source": "no such thing"}, "is not a source of rows"),
        ({"source": "a" * 5000}, "is not a source of rows"),
        ({"source": ""}, "is not a source of rows"),
        ({"source": "./r.jsonl", "revision": "main"}, "revision 'main' has no effect"),
        ({"source": "sample:senses", "subset": "x"}, "subset 'x' has no effect"),
        ({"source": "./r.jsonl", "holdout": 1.0}, "holdout is 1.0"),
        ({"source": "./r.jsonl", "holdout": 0.1, "test": "test"}, "holdout 0.1 has no effect"),
        ({"source": "./r.jsonl", "train": "train[5]"}, "does not name a split"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(options, message):
    with pytest.raises(ReuseError) as caught:
        Data(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "tran"}, "did you mean 'train'?"),
        ({"test": "holdout"}, "expected: one of test, train, validation"),
        ({"train": "train[:101]"}, "has 100 rows"),
        ({"holdout": 0.2}, "has a split 'test'"),
        ({"test": "./rows/tst.jsonl"}, "did you mean 'rows/test.jsonl'?"),
    ],
)
def test_a_split_that_is_not_there_is_refused_by_name(folder, options, message):
    with pytest.raises((DataError, SourceError)) as caught:
        Data(source="./rows", **options).load()
    assert message in str(caught.value)


def test_an_empty_split_is_refused(folder):
    (folder / "rows/test.jsonl").write_text("\n")

    with pytest.raises(DataError, match="split 'test' is empty"):
        Data(source="./rows").load()
