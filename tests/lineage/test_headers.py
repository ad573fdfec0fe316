from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.headers import MAX_HEADER, NUM_BITS, headers, parse_header, read_header


def entry(dtype: str, shape: list, start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_headers_agree_with_the_reference_reader(base):
    infos = headers(base)

    with safe_open(base / "model.safetensors", "np") as file:
        assert set(infos) == set(file.keys())
        for name, info in infos.items():
            assert info.dtype == file.get_slice(name).get_dtype()
            assert list(info.shape) == file.get_slice(name).get_shape()
    info = infos["layer.weight"]
    data = (base / info.file).read_bytes()[info.start : info.end]
    assert np.array_equal(np.frombuffer(data, np.float32), np.arange(6))


def test_every_safetensors_file_at_the_top_counts_whatever_its_name(tmp_path):
    save_file({"a": np.ones(1)}, tmp_path / "adapter_model.safetensors")
    save_file({"b": np.ones(1)}, tmp_path / "model-00001-of-00002.safetensors")

    assert {name: info.file for name, info in headers(tmp_path).items()} == {
        "a": "adapter_model.safetensors",
        "b": "model-00001-of-00002.safetensors",
    }


def test_tensor_in_two_files_is_ambiguous(base):
    save_file({"bias": np.ones(3)}, base / "other.safetensors")

    with pytest.raises(
        IntegrityError, match=r"model.safetensors and in other.safetensors"
    ) as caught:
        headers(base)

    assert (caught.value.code, caught.value.tensor) == ("AMBIGUOUS_TENSOR", "bias")


ONE = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
COUNTS = "are not what they should be"

MALFORMED: list[tuple[bytes | dict, int, str]] = [
    (b"", 0, "header: "),
    (b"[]", 0, "not a mapping"),
    (b' {"a":' + ONE + b"}", 1, "not a mapping"),
    (b'{"a":1}', 0, "expected exactly dtype, shape and data_offsets"),
    (b'{"a":' + ONE + b',"a":' + ONE + b"}", 1, "'a' occurs twice"),
    (b'{"\\ud800":' + ONE + b"}", 1, "lone surrogate"),
    (b'{"__metadata__":{"a":"1","a":"2"}}', 0, "'a' occurs twice"),
    (b'{"__metadata__":{"a":1}}', 0, "__metadata__ is not text"),
    (b'{"__metadata__":[]}', 0, "__metadata__ is not text"),
    (b'{"__metadata__":null}', 0, "__metadata__ is not text"),
    ({"a": {**entry("U8", [1], 0, 1), "more": 1}}, 1, "expected exactly"),
    ({"a": entry("X8", [1], 0, 1)}, 1, "unknown dtype 'X8'"),
    ({"a": entry("F32", [1], 0, 1)}, 1, "F32 of shape [1] does not take 1 bytes"),
    ({"a": entry("F4", [3], 0, 1)}, 1, "does not take 1 bytes"),
    ({"a": entry("U8", [2**40, 2**40], 0, 2**53 - 1)}, 2**53 - 1, "does not take"),
    ({"a": entry("U8", [-1, -1], 0, 1)}, 1, COUNTS),
    ({"a": entry("U8", [1.5], 0, 1)}, 1, COUNTS),
    ({"a": entry("U8", [True], 0, 1)}, 1, COUNTS),
    ({"a": entry("U8", [1], -1, 0)}, 0, COUNTS),
    ({"a": {**entry("U8", [1], 0, 1), "data_offsets": [0, 1, 2]}}, 1, COUNTS),
    ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, 3, "overlaps"),
    ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 0, 2)}, 2, "overlaps"),
    ({"a": entry("U8", [2], 0, 2), "b": entry("U8", [0], 1, 1)}, 2, "overlaps"),
    ({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, 3, "leaves a hole"),
    ({"a": entry("U8", [1], 1, 2)}, 2, "leaves a hole"),
    ({"a": entry("U8", [1], 0, 1)}, 3, "2 bytes that belong to no tensor"),
]


@pytest.mark.parametrize(("header", "num_data_bytes", "words"), MALFORMED)
def test_malformed_header_is_refused_with_the_reason(header, num_data_bytes, words):
    data = header if isinstance(header, bytes) else json.dumps(header).encode()

    with pytest.raises(IntegrityError) as caught:
        parse_header(data, num_data_bytes, "x.safetensors")

    assert (caught.value.code, caught.value.path) == ("BAD_SAFETENSORS", "x.safetensors")
    assert words in caught.value.what


def test_missing_data_is_told_from_a_malformed_header():
    with pytest.raises(IntegrityError, match="ends 1 bytes early") as caught:
        parse_header(json.dumps({"a": entry("U8", [4], 0, 4)}).encode(), 3, "x")

    assert caught.value.code == "TRUNCATED"


def test_empty_tensors_may_share_an_offset():
    values = {
        "a": entry("U8", [0], 0, 0),
        "b": entry("I8", [2, 0], 0, 0),
        "c": entry("F4", [2], 0, 1),
    }

    assert len(parse_header(json.dumps(values).encode(), 1, "x")) == 3


@pytest.mark.parametrize("size", [MAX_HEADER + 1, 2**63, 100])
def test_claimed_header_size_is_checked_before_memory_is_taken(tmp_path, size):
    path = tmp_path / "x.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b"{}")

    with pytest.raises(IntegrityError, match="BAD_SAFETENSORS"):
        read_header(path)


def test_tiny_file_is_truncated(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"123")

    with pytest.raises(IntegrityError, match="TRUNCATED"):
        read_header(tmp_path / "x.safetensors")


def test_missing_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        read_header(tmp_path / "nowhere")


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(
            st.sampled_from(["uint8", "int16", "float32", "float64", "bool"]),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        max_size=5,
    )
)
def test_whatever_the_reference_writes_is_read(tensors):
    arrays = {name: np.zeros(shape, dtype) for name, (dtype, shape) in tensors.items()}
    data = save(arrays)
    size = int.from_bytes(data[:8], "little")

    infos = parse_header(data[8 : 8 + size], len(data) - 8 - size, "x")

    assert {name: info.shape for name, info in infos.items()} == {
        name: array.shape for name, array in arrays.items()
    }


@given(data=st.data())
def test_what_is_accepted_after_damage_the_reference_accepts_too(data, tmp_path_factory):
    good = bytearray(save({"a": np.arange(3, dtype=np.int16), "b": np.ones(2)}))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    path: Path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(cut)

    infos = None
    with suppress(IntegrityError):
        infos = read_header(path)

    if infos is not None:
        with safe_open(path, "np") as file:
            assert set(infos) == set(file.keys())


NEWER_THAN_THE_REFERENCE = ("F8_E4M3FNUZ", "F8_E5M2FNUZ")


@pytest.mark.parametrize(
    "dtype", [name for name in NUM_BITS if name not in NEWER_THAN_THE_REFERENCE]
)
def test_dtypes_have_the_sizes_of_the_reference(tmp_path, dtype):
    header = json.dumps({"a": entry(dtype, [8], 0, NUM_BITS[dtype])}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(NUM_BITS[dtype]))

    with safe_open(path, "np") as file:
        assert file.get_slice("a").get_dtype() == dtype
    assert set(read_header(path)) == {"a"}


def test_a_name_that_would_fill_messages_is_refused():
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}

    with pytest.raises(IntegrityError, match="name of 5000 characters") as caught:
        parse_header(json.dumps({"x" * 5000: entry}).encode(), 0, "x.safetensors")

    assert caught.value.code == "BAD_SAFETENSORS"
