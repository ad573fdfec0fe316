from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from reuselib.errors import IntegrityError
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.rows import TensorRow, dump_rows, parse_rows, tensor_hash


def row(name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> TensorRow:
    return TensorRow(name, dtype, shape, hashlib.sha256(data).hexdigest(), "model.safetensors")


VECTOR = [
    row("b.w", "F32", (2,), struct.pack("<2f", 1, 2)),
    row("a.bias", "I8", (0,), b""),
    row("\u00e9", "BF16", (1, 1), b"\x80\x3f"),
]


def test_tensor_hash_of_the_published_vector():
    expected = "2bf769068406f3229cb841c800a3011bce3e4c6518e3e8d82100b353b65dabc6"

    assert tensor_hash(VECTOR) == tensor_hash(reversed(VECTOR)) == expected


def test_tensor_hash_ignores_sharding_metadata_and_file_names(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    a, b = np.arange(3.0), np.ones((2, 2), dtype=np.int8)
    save_file({"a": a, "b": b}, one / "model.safetensors")
    save_file({"b": b}, two / "x.safetensors", {"format": "pt"})
    save_file({"a": a}, two / "y.safetensors")

    assert take_inventory(one).digests.tensor_hash == take_inventory(two).digests.tensor_hash


@pytest.mark.parametrize(
    "other",
    [
        row("b.v", "F32", (2,), struct.pack("<2f", 1, 2)),
        row("b.w", "I32", (2,), struct.pack("<2f", 1, 2)),
        row("b.w", "F32", (2, 1), struct.pack("<2f", 1, 2)),
        row("b.w", "F32", (2,), struct.pack("<2f", 1, 3)),
    ],
)
def test_tensor_hash_binds_name_type_shape_and_values(other):
    assert tensor_hash([other, *VECTOR[1:]]) != tensor_hash(VECTOR)


def test_rows_hold_the_digest_of_the_raw_bytes(base):
    rows = {row.name: row for row in take_inventory(base).rows}

    expected = hashlib.sha256(np.arange(6, dtype="<f4").tobytes()).hexdigest()
    assert rows["layer.weight"] == TensorRow(
        "layer.weight", "F32", (2, 3), expected, "model.safetensors"
    )


def test_rows_are_written_in_order_and_read_back():
    data = dump_rows(VECTOR)

    assert [row.name for row in parse_rows(data)] == ["a.bias", "b.w", "\u00e9"]
    assert set(parse_rows(data)) == set(VECTOR)
    assert data.count(b"\n") == 3


@pytest.mark.parametrize(
    "change",
    [
        (b'"dtype":"F32"', b'"dtype":"X"'),
        (b'"shape":[2]', b'"shape":[-2]'),
        (b'"shape":[2]', b'"shape":[true]'),
        (b'"shape":[2]', b'"shape":2'),
        (b'"file":', b'"fil":'),
        (b'"file":', b'"more":1,"file":'),
        (b'"sha256":"', b'"sha256":"0'),
    ],
)
def test_other_rows_are_refused(change):
    with pytest.raises(IntegrityError, match="BAD_JSON"):
        parse_rows(dump_rows(VECTOR[:1]).replace(*change))


def test_tensor_listed_twice_is_refused():
    with pytest.raises(IntegrityError, match="AMBIGUOUS_TENSOR"):
        parse_rows(dump_rows(VECTOR[:1]) * 2)
