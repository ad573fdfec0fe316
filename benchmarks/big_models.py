"""Are models derived and proven that are larger than the memory at hand, and at what speed?

Writes a Llama-like model without meaning in shards, and a LoRA child of it with an honest record. Then `reuselib run`
rounds the one (`quantize`, to the nearest) and folds the other in (`merge`), and `reuselib prove` checks both children,
each in a process of its own that may not hold more private memory than the limit:

    python benchmarks/big_models.py --gigabytes 6 --limit 1.5 --folder /tmp

The limit is RLIMIT_DATA, see setrlimit(2): all private writable memory counts, what Python and torch need included, and
so does a tensor of a file that may be written to in memory. Pages of files that are only read do not count: the system
takes them back whenever it likes. What was resident at most is told for both kinds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rig import keep, machine
from synthetic import write_shards
from torch import Tensor

from reuselib.adapters.lora import PREFIX, LoRA
from reuselib.lineage.definition import Definition, Internal
from reuselib.lineage.descriptors import Parent
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.record import Draft, record
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import save_tensors
from reuselib.tasks.causal_lm import CausalLM
from reuselib.testing.tiny import tiny_llama

ADAPTER = LoRA(r=8)
TASK = CausalLM()
POLL = 0.01
"""Seconds between two looks at what a process holds."""
HELD = {"private": "RssAnon", "of files": "RssFile", "counted": "VmData"}
"""Kinds of memory, by their names in /proc/<pid>/status."""


def write_base(folder: Path, num_bytes: float, width: int) -> Path:
    """A Llama of about so many bytes in fp32, a file for each block, with a tokenizer of few words."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny_llama(folder.with_name("words"))
    sizes = {"hidden_size": width, "intermediate_size": 11 * width // 4, "vocab_size": 16 * width}
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 64}
    block = 4 * width**2 + 3 * width * sizes["intermediate_size"]
    left = num_bytes / 4 - 2 * sizes["vocab_size"] * width
    config = LlamaConfig(**sizes, **heads, num_hidden_layers=max(1, round(left / block)))
    config.architectures = ["LlamaForCausalLM"]
    with torch.device("meta"):
        shapes = {n: v.shape for n, v in LlamaForCausalLM(config).state_dict().items()}
    write_shards(folder, _blocks(shapes))
    config.save_pretrained(folder)
    for each in folder.with_name("words").glob("tokenizer*"):
        shutil.copy(each, folder)
    return folder


def _blocks(shapes: Mapping[str, torch.Size]) -> Iterator[Mapping[str, Tensor]]:
    draw, parts = torch.Generator().manual_seed(0), dict[str, list[str]]()
    for name in shapes:
        found = re.match(r"model\.layers\.\d+", name)
        parts.setdefault(found[0] if found else name, []).append(name)
    for names in parts.values():
        yield {name: torch.randn(shapes[name], generator=draw) / 50 for name in names}


def write_update(folder: Path, base: Path) -> Path:
    """A low-rank update of all linear layers, as `lora` records it."""
    from reuselib.model.sketching import open_sketch

    opened = open_sketch(base, TASK, Store(folder.parent / "none"))
    assert opened is not None
    linear = {n: m for n, m in opened.module.named_modules() if isinstance(m, torch.nn.Linear)}
    targets = sorted(name for name in linear if name != "lm_head")
    structure = {"targets": [*targets], "saved": []}
    folder.mkdir()
    draw, tensors = torch.Generator().manual_seed(1), dict[str, Tensor]()
    for name in targets:
        rows, columns = linear[name].weight.shape
        a, b = (
            torch.randn(ADAPTER.r, columns, generator=draw),
            torch.randn(rows, ADAPTER.r, generator=draw),
        )
        tensors |= {
            f"{PREFIX}{name}.lora_A.weight": a / 50,
            f"{PREFIX}{name}.lora_B.weight": b / 50,
        }
    save_tensors(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    ADAPTER._config(structure).save_pretrained(folder)
    pinned = Manifest.pin("base", take_inventory(base).digests, source="file:base")
    parent = Parent("base", "base", "file:base", pinned.digests, pinned.sha256)
    described = ADAPTER.describe()["lora"]
    assert isinstance(described, dict)
    internal = Internal(
        derivation_id="2" * 64,
        form="adapter",
        structure=structure,
        requires=(pinned.digests.dir_hash,),
    )
    definition = Definition(
        relation=ADAPTER.relation,
        adapter="lora",
        recipe=described,
        task=TASK.describe(),
        seed=0,
        internal=internal,
        dependencies=parent.descriptors(),
    )
    ancestors = {pinned.sha256: pinned.payload()}
    draft = Draft("base-lora", definition)
    record(folder, draft, metrics={}, environment={}, ancestors=ancestors)
    return folder


def limited(command: Sequence[str], limit: int) -> dict[str, Any]:
    """Run `reuselib` within a limit; what it held at most of each kind of memory (bytes), and seconds."""

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    began, peaks = time.perf_counter(), dict.fromkeys(HELD, 0)
    with tempfile.TemporaryFile() as told:
        running = subprocess.Popen(
            [sys.executable, "-m", "reuselib", *command],
            stdout=told,
            stderr=subprocess.STDOUT,
            preexec_fn=bound,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        )
        while running.poll() is None:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{running.pid}/status").read_text()
                for kind, name in HELD.items():
                    if found := re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE):
                        peaks[kind] = max(peaks[kind], 1024 * int(found[1]))
            time.sleep(POLL)
        if running.returncode:
            told.seek(0)
            raise SystemExit(f"{' '.join(command)}: {running.returncode}\n{told.read().decode()}")
    return {**peaks, "seconds": time.perf_counter() - began}


def copied(source: Path, target: Path) -> float:
    """Bytes a second, read and written, of a plain copy onto this disk: the best that a step could reach."""
    began = time.perf_counter()
    for each in source.glob("*.safetensors"):
        with each.open("rb") as reader, (target / each.name).open("wb") as writer:
            shutil.copyfileobj(reader, writer, 2**23)
            writer.flush()
            os.fsync(writer.fileno())
    seconds = time.perf_counter() - began
    return 2 * sum(each.stat().st_size for each in target.iterdir()) / seconds


def size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.glob("*.safetensors"))


def measure(folder: Path, num_bytes: float, limit: int, width: int) -> dict[str, Any]:
    """Both steps and both proofs."""
    base = write_base(folder / "base", num_bytes, width)
    update = write_update(folder / "update", base)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        disk = copied(base, Path(place))
    store = folder / "store"
    Store(store).remember_root(take_inventory(base).digests.dir_hash, base)
    result: dict[str, Any] = {"bytes": size(base), "limit": limit, "copy": disk}
    for step, parent in (("quantize", base), ("merge", update)):
        recipe, child = folder / f"{step}.yaml", folder / step
        recipe.write_text(
            f"base: {{source: {json.dumps(str(parent))}}}\ntask: {{causal_lm: {{}}}}\nsteps: [{step}]\n"
        )
        run = ["run", str(recipe), "--store", str(store), "--output", str(child)]
        made = limited(run, limit)
        read = size(base) + size(child)
        result[step] = {**made, "bytes": size(child), "rate": read / made["seconds"]}
        proof = ["prove", str(child), "--store", str(store)]
        result[f"prove {step}"] = limited(proof, limit)
        shutil.rmtree(child)
        shutil.rmtree(store / "models")
    return result


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of the model")
    parser.add_argument(
        "--limit", type=float, default=1.5, help="gigabytes that a process may hold"
    )
    parser.add_argument("--width", type=int, default=2048, help="of the network")
    parser.add_argument("--folder", type=Path, help="where to; default: a temporary one")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        limit = round(options.limit * 1e9)
        result = measure(Path(folder), options.gigabytes * 1e9, limit, options.width)
    print(f"model {result['bytes'] / 1e9:.2f} GB, limit {limit / 1e9:.2f} GB")
    for name in ("quantize", "prove quantize", "merge", "prove merge"):
        found = result[name]
        held = ", ".join(f"{kind} {found[kind] / 1e6:.0f} MB" for kind in HELD)
        print(f"{name}: {found['seconds']:.1f} s; at most {held}")
    print(f"a plain copy: {result['copy'] / 1e9:.2f} GB/s read and written")
    keep({"machine": machine(), **result}, "big_models", options.output)


if __name__ == "__main__":
    main()
