from __future__ import annotations

from dataclasses import replace

import pytest

from reuselib.lineage.compare import changed_files, changed_tensors, is_loadable
from reuselib.lineage.rows import TensorRow

ROW = TensorRow("w", "F32", (2,), "a" * 64, "x.safetensors")


def test_equal_inventories_have_no_differences():
    assert list(changed_tensors([ROW], [ROW])) == []
    assert list(changed_files({"a": "1"}, {"a": "1"}, frozenset())) == []


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ([], "MISSING_TENSOR", "not there"),
        ([replace(ROW, dtype="F16")], "DIGEST_MISMATCH", "is F16 [2], recorded F32 [2]"),
        ([replace(ROW, shape=(1, 2))], "DIGEST_MISMATCH", "is F32 [1, 2], recorded F32 [2]"),
        ([replace(ROW, sha256="b" * 64)], "DIGEST_MISMATCH", "other values"),
        ([replace(ROW, file="y.safetensors")], "DIGEST_MISMATCH", "recorded in x.safetensors"),
        ([ROW, replace(ROW, name="v")], "UNKNOWN_TENSOR", "not recorded"),
    ],
)
def test_difference_of_a_tensor_is_told_in_words(found, code, words):
    (error,) = changed_tensors([ROW], found)

    assert error.code == code
    assert words in error.what


def test_file_whose_tensors_were_named_is_not_named_again():
    assert list(changed_files({"a": "1"}, {"a": "2"}, frozenset({"a"}))) == []


def test_renamed_file_is_told_from_an_added_one():
    errors = list(changed_files({"a.json": "1"}, {"b.json": "1", "c.png": "2"}, frozenset()))

    assert [(error.code, error.path) for error in errors] == [
        ("DIGEST_MISMATCH", "b.json"),
        ("UNSIGNED_FILE", "c.png"),
        ("MISSING_FILE", "a.json"),
    ]
    assert "recorded as a.json" in errors[0].what


@pytest.mark.parametrize(
    "name",
    [
        *(
            "flax_model.msgpack",
            "rust_model.ot",
            "vocab.bpe",
            "bpe.codes",
            "source.spm",
            "model.keras",
        ),
        *(
            "model.tflite",
            "x.npz",
            "merges",
            "dict",
            "README.md~",
            "LICENSE.json",
            ".hidden/config.json",
        ),
        *("model.safetensors", "LICENSE.safetensors", "added.JSON", "x.git", "vocab.txt"),
    ],
)
def test_whatever_a_library_may_know_is_loadable(name):
    assert is_loadable(name)
    (error,) = changed_files({}, {name: "1"}, frozenset())
    assert error.code == "UNSIGNED_LOADABLE"


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/more.md",
        "LICENSE",
        "licence.txt",
        "NOTICE",
        "a.PNG",
        ".gitattributes",
        ".git/HEAD",
    ],
)
def test_what_only_people_read_is_not(name):
    assert not is_loadable(name)
