"""How much memory do `verify` and `prove` need for a model of many gigabytes?

Writes a sharded parent without meaning and a child of it with an honest record, then has each checked in a process of
its own and reads that process's peak memory:

    python benchmarks/synthetic.py --gigabytes 4 --folder /tmp/synthetic

Children: `finetune`, of which all but the last tensors are frozen, and `int8`, every matrix rounded to the nearest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rig import keep, machine
from torch import Tensor

from reuselib.adapter import Adapter, Json
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.quantize import Quantize
from reuselib.lineage.definition import Definition, Internal
from reuselib.lineage.descriptors import Parent
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.record import Draft, record
from reuselib.lineage.tensors import Tensors, save_tensors
from reuselib.quantization.rounding import nearest
from reuselib.quantization.schemes import scheme

SHARD = 16
"""Matrices in a file."""
TRAINED = 4
"""The last so many matrices learned."""

Made = tuple[Adapter, str, Json, Callable[[int, str, Tensor], Mapping[str, Tensor]]]


def write_parent(folder: Path, num_matrices: int, shape: tuple[int, int]) -> Path:
    """A model of so many fp32 matrices, no two alike, in shards with their index."""
    block = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 50
    names = [f"layers.{index}.weight" for index in range(num_matrices)]
    shards = (
        {name: block.roll(at) for at, name in enumerate(names) if at // SHARD == number}
        for number in range(-(-num_matrices // SHARD))
    )
    return write_shards(folder, shards)


def write_shards(folder: Path, shards: Iterator[Mapping[str, Tensor]]) -> Path:
    """Tensors in files of their own, with the index that libraries look for."""
    folder.mkdir(parents=True)
    places: dict[str, str] = {}
    for number, tensors in enumerate(shards):
        file = f"model-{number:05d}.safetensors"
        save_tensors(tensors, folder / file, {"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, sort_keys=True))
    (folder / "config.json").write_text(json.dumps({"model_type": "synthetic"}))
    return folder


def tuned(num_matrices: int) -> Made:
    """The last matrices moved."""
    first = num_matrices - TRAINED
    trained = sorted(f"layers.{index}.weight" for index in range(first, num_matrices))
    structure: Json = {"trained": [*trained], "statistics": []}
    return (
        FineTune(train=tuple(trained)),
        "dense",
        structure,
        lambda index, name, value: {name: value + 1 if index >= first else value},
    )


def rounded(num_matrices: int) -> Made:
    """Every matrix in 8 bits."""
    how = scheme("int8")
    names = [f"layers.{index}" for index in range(num_matrices)]
    structure: Json = {
        "new": [],
        "layers": dict.fromkeys(names, "int8"),
        "tables": [],
        "transposed": [],
    }

    def change(_: int, name: str, value: Tensor) -> Mapping[str, Tensor]:
        layer = name.removesuffix(".weight")
        return {f"{layer}.{part}": each for part, each in nearest(value, how).tensors(how).items()}

    return Quantize(), "quantized", structure, change


KINDS: Mapping[str, Callable[[int], Made]] = {"finetune": tuned, "int8": rounded}


def write_child(folder: Path, parent: Path, kind: str) -> Path:
    """A child of a parent from `write_parent`, with an honest record."""
    weights = Tensors(parent)
    names = sorted(weights, key=lambda name: int(name.split(".")[1]))
    adapter, form, structure, change = KINDS[kind](len(names))
    shards = (
        {
            new: value
            for at in range(start, min(start + SHARD, len(names)))
            for new, value in change(at, names[at], weights[names[at]]).items()
        }
        for start in range(0, len(names), SHARD)
    )
    write_shards(folder, shards)
    pinned = Manifest.pin("base", take_inventory(parent).digests, source="file:base")
    base = Parent("base", "base", "file:base", pinned.digests, pinned.sha256)
    described = adapter.describe()[adapter.kind]
    assert isinstance(described, dict)
    draft = Draft(
        f"base-{adapter.kind}",
        Definition(
            relation=adapter.relation,
            adapter=adapter.kind,
            recipe=described,
            seed=0,
            internal=Internal(derivation_id="1" * 64, form=form, structure=structure),
            dependencies=base.descriptors(),
        ),
    )
    record(folder, draft, metrics={}, environment={}, ancestors={pinned.sha256: pinned.payload()})
    return folder


CHECKS: Mapping[str, str] = {
    "verify": "from reuselib.lineage.verify import verify; assert verify(Path(child)).ok",
    "prove": "from reuselib.evidence.prove import prove; "
    "proof = prove(Path(child), parents=[Path(parent)], store=child); assert proof.tier == 'proven', proof",
}
"""By name, what the process does; it says its own peak at the end."""


def peak(check: str, parent: Path, child: Path) -> dict[str, float]:
    """Peak memory (bytes, VmHWM) and seconds of a check in a process of its own."""
    code = (
        f"import sys; from pathlib import Path; parent, child = sys.argv[1:]; {CHECKS[check]}; "
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
    )
    began = time.perf_counter()
    command = [sys.executable, "-c", code, str(parent), str(child)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"peak": 1024 * float(done.stdout), "seconds": time.perf_counter() - began}


def measure(folder: Path, num_bytes: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Both children of a parent of about so many bytes, checked in both ways."""
    num_matrices = max(2 * TRAINED, round(num_bytes / (4 * shape[0] * shape[1])))
    parent = write_parent(folder / "parent", num_matrices, shape)
    result: dict[str, Any] = {"bytes": 4 * num_matrices * shape[0] * shape[1], "shape": shape}
    for kind in KINDS:
        child = write_child(folder / kind, parent, kind)
        result[kind] = {check: peak(check, parent, child) for check in CHECKS}
    return result


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--shape", type=int, nargs=2, default=(2048, 2048), help="of each matrix")
    parser.add_argument("--folder", type=Path, help="where to; default: a temporary one")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shape = (options.shape[0], options.shape[1])
        result = measure(Path(folder), round(options.gigabytes * 1e9), shape)
    for kind in KINDS:
        for check, found in result[kind].items():
            print(f"{kind} {check}: {found['peak'] / 1e6:.0f} MB, {found['seconds']:.1f} s")
    keep({"machine": machine(), **result}, "synthetic", options.output)


if __name__ == "__main__":
    main()
