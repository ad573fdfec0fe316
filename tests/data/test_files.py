"""The same rows come out of every format, and faults name file and line."""

import csv
import json

import pytest

from reuselib.data import Data
from reuselib.data.files import folder_tables, read_file
from reuselib.errors import DataError, SourceError

ROWS = [
    {"text": 'a "quoted", caf\u00e9\nin two lines', "label": 1, "score": 0.1, "code": "007"},
    {"text": "plain", "label": 0, "score": -2.5e-3, "code": "08"},
    {"text": "NA", "label": -3, "score": 1e300, "code": "9"},
]


def write_csv(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_all(folder, rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rows.json").write_text(json.dumps(rows, indent=2))
    write_csv(folder / "rows.csv", rows)
    write_csv(folder / "rows.tsv", rows, delimiter="\t")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")


def test_every_format_gives_the_same_rows_and_digest(tmp_path):
    write_all(tmp_path, ROWS)

    for end in ("jsonl", "json", "csv", "tsv", "parquet"):
        assert read_file(tmp_path / f"rows.{end}") == ROWS, end
    ends = ("jsonl", "csv", "parquet")
    digests = {Data(source=f"{tmp_path}/rows.{end}").load().digest for end in ends}
    assert len(digests) == 1


def test_csv_columns_are_typed_only_where_every_value_fits(tmp_path):
    lines = ["i,f,b,s,gap,mixed,empty", "1,1,true,nan,3,1,", "-2,2.5,False,,,x,"]
    (tmp_path / "t.csv").write_bytes(("\ufeff" + "\r\n".join(lines) + "\r\n\r\n").encode())

    assert read_file(tmp_path / "t.csv") == [
        {"i": 1, "f": 1.0, "b": True, "s": "nan", "gap": 3, "mixed": "1", "empty": ""},
        {"i": -2, "f": 2.5, "b": False, "s": "", "gap": None, "mixed": "x", "empty": ""},
    ]


def test_a_key_that_some_json_rows_lack_is_none_there(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{"b": 2}\n')

    assert read_file(tmp_path / "t.jsonl") == [{"a": 1, "b": None}, {"a": None, "b": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "t.jsonl:2: "),
        ("t.jsonl", b'{"a": 1}\n[1]\n', "t.jsonl:2: a list instead of an object"),
        ("t.jsonl", b'{"a": 1, "a": 2}', "t.jsonl:1: the key 'a' is there twice"),
        ("t.jsonl", b'{"a": NaN}', "t.jsonl:1: NaN is not JSON"),
        ("t.jsonl", b'{"a": "\xff"}', "t.jsonl:1: "),
        ("t.jsonl", b"[" * 100_000, "t.jsonl:1: "),
        ("t.json", b'{"a": 1}', "does not hold a list of objects"),
        ("t.json", b"[{]", "is not JSON"),
        ("t.csv", b"a,b\n1,2\n3\n", "t.csv:3: 1 fields where the header has 2"),
        ("t.csv", b"a,a\n1,2\n", "t.csv:1: the column 'a' is there twice"),
        ("t.csv", b"a,b\n1,2\n\xe9,3\n", "t.csv:3: byte 0xe9 is not UTF-8"),
        ("t.csv", b'a\n"never closed\n', "t.csv:"),
        ("t.parquet", b"PAR1 not really", "is not a parquet file"),
        ("t.xlsx", b"", "expected: a name that ends in .jsonl"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError) as caught:
        read_file(tmp_path / name)
    assert message in str(caught.value)


def test_a_missing_file_names_its_nearest_neighbour(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}")

    with pytest.raises(SourceError, match=r"did you mean '.*train.jsonl'"):
        read_file(tmp_path / "tain.jsonl")


def test_a_folder_holds_a_split_a_file_and_may_hold_it_in_parts(tmp_path):
    for name, value in (("train-00000-of-00002", 1), ("train-00001-of-00002", 2), ("test", 3)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"a": value}))
    (tmp_path / "notes.txt").write_text("not data")

    tables = folder_tables(tmp_path)

    assert {name: table() for name, table in tables.items()} == {
        "train": [{"a": 1}, {"a": 2}],
        "test": [{"a": 3}],
    }


def test_two_files_for_a_split_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(SourceError, match="no data files"):
        folder_tables(tmp_path)
    (tmp_path / "train.jsonl").write_text("{}")
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="several files claim the split 'train'"):
        folder_tables(tmp_path)
