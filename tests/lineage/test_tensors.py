from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reuselib.errors import IntegrityError, StoreError
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.tensors import Tensors, save_tensors

WEIGHTS = {
    "float": torch.randn(3, 4),
    "half": torch.randn(5).half(),
    "bfloat": torch.randn(2, 2).bfloat16(),
    "double": torch.randn(1, dtype=torch.float64),
    "odd": torch.arange(3, dtype=torch.uint8),
    "flags": torch.tensor([True, False]),
    "long": torch.arange(4),
    "eight": torch.ones(3).to(torch.float8_e4m3fn),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 3),
    "\u00e9": torch.randn(2, 3).T,
}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        raw, wanted = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(raw, wanted)


def test_reference_reads_what_is_written(tmp_path):
    save_tensors(WEIGHTS, tmp_path / "x.safetensors", {"format": "pt"})

    assert_equal(load_file(tmp_path / "x.safetensors"), WEIGHTS)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_the_reference_writes_is_read(tmp_path):
    contiguous = {name: tensor.contiguous() for name, tensor in WEIGHTS.items()}
    save_file(contiguous, tmp_path / "x.safetensors")

    assert_equal(Tensors(tmp_path), WEIGHTS)


def test_equal_weights_give_equal_bytes_in_any_order(tmp_path):
    metadata = {"format": "pt", "b": "1", "a": "2", "c": "3"}
    save_tensors(WEIGHTS, tmp_path / "one", metadata)
    save_tensors(
        dict(reversed(WEIGHTS.items())), tmp_path / "two", dict(reversed(metadata.items()))
    )

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_unaligned_tensor_is_read(tmp_path):
    header = json.dumps(
        {
            "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
        }
    ).encode()
    data = b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)

    tensor = Tensors(tmp_path)["b"]

    assert torch.equal(tensor, torch.tensor([1.5, -2.0]))
    assert tensor.data_ptr() % 4 == 0


def test_writing_to_a_tensor_changes_neither_the_file_nor_the_next_reading(tmp_path):
    save_tensors(WEIGHTS, tmp_path / "x.safetensors")
    before = (tmp_path / "x.safetensors").read_bytes()
    tensors = Tensors(tmp_path)

    tensors["float"].zero_()

    assert torch.equal(tensors["float"], WEIGHTS["float"])
    assert (tmp_path / "x.safetensors").read_bytes() == before


def test_tensor_outlives_the_mapping_it_came_from(tmp_path):
    save_tensors(WEIGHTS, tmp_path / "x.safetensors")
    tensor = Tensors(tmp_path)["float"]
    gc.collect()

    assert torch.equal(tensor, WEIGHTS["float"])


def test_raw_bytes_are_those_of_the_inventory(tmp_path):
    save_tensors(WEIGHTS, tmp_path / "x.safetensors")
    tensors = Tensors(tmp_path)

    for row in take_inventory(tmp_path).rows:
        raw = tensors[row.name].reshape(-1).view(torch.uint8).numpy().tobytes()
        assert hashlib.sha256(raw).hexdigest() == row.sha256


def test_looking_for_a_name_reads_nothing_and_a_wrong_name_is_a_key_error(tmp_path):
    save_tensors(WEIGHTS, tmp_path / "x.safetensors")
    tensors = Tensors(tmp_path)
    (tmp_path / "x.safetensors").unlink()

    assert "float" in tensors
    assert "nothing" not in tensors
    assert tensors.info("float").shape == (3, 4)
    with pytest.raises(KeyError):
        tensors["nothing"]


def test_type_that_torch_lacks_is_named(tmp_path):
    header = b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x00")

    with pytest.raises(IntegrityError, match="'a' is stored as F4"):
        Tensors(tmp_path)["a"]


def test_unwritable_place_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="bytes free"):
        save_tensors(WEIGHTS, tmp_path / "file/x.safetensors")


def test_the_room_is_imported_without_torch():
    code = (
        "import importlib, pkgutil, sys, reuselib.lineage as room\n"
        "names = [f'{room.__name__}.{m.name}' for m in pkgutil.iter_modules(room.__path__)]\n"
        "[importlib.import_module(name) for name in names]\n"
        "heavy = {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "assert len(names) > 20 and not heavy, heavy"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
