from __future__ import annotations

import hashlib

from safetensors.numpy import load_file

from reuselib.lineage.digest import dir_hash, file_digests
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.rows import TensorRow, tensor_hash

FILE = "model.safetensors"


def test_inventory_holds_files_and_tensors_measured_separately(base):
    (base / "README.md").write_text("not payload")

    inventory = take_inventory(base)

    assert inventory.files == file_digests(base)
    tensors = sorted(load_file(base / "model.safetensors").items())
    assert list(inventory.rows) == [
        TensorRow(
            name,
            f"F{8 * each.itemsize}",
            each.shape,
            hashlib.sha256(each.tobytes()).hexdigest(),
            FILE,
        )
        for name, each in tensors
    ]
    assert inventory.digests.dir_hash == dir_hash(file_digests(base))
    assert inventory.digests.tensor_hash == tensor_hash(inventory.rows)
    weights = (base / "model.safetensors").read_bytes()
    assert inventory.files["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert inventory.num_bytes == len(weights) + len('{"size": 3}')


def test_folder_without_tensors_has_an_inventory(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    assert take_inventory(tmp_path).rows == ()
