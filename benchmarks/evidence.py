"""What does evidence cost: digests, proofs and traces, in time and in memory?

- `digest`: a model of 1 GB, all files and all tensors, against hashlib's SHA-256 of the same bytes: in memory on all
  cores at once (what the processor can do), and `hashlib.file_digest` on one core times the number of cores.
- `chain`: `prove` over every step of the quickstart's chain, in a process of its own: seconds and peak memory.
- `trace`: a store of 1,000 manifests drawn as a forest, in a process of its own.

Peak memory is the largest resident set that the system saw. It includes Python, torch, and the pages of files that were
read last. For models of many gigabytes see `synthetic.py`; for what a run spends on its record, `lineage_cost.py`; for
what is caught, `forgeries.py`. Run it on a machine that does nothing else:

    python benchmarks/evidence.py --store STORE_OF_THE_QUICKSTART
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import rig
import torch

from reuselib.lineage.hashing import num_cores
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.tensors import save_tensors
from reuselib.testing.histories import fill_store

CHUNK = 2**28


def write_model(folder: Path, num_bytes: int) -> Path:
    """A model in one file, as most models of this size come: matrices of 4 MB, no two alike."""
    folder.mkdir(parents=True)
    block = torch.arange(2**20, dtype=torch.float32).reshape(1024, 1024)
    num_matrices = max(1, num_bytes // (4 * block.numel()))
    save_tensors(
        {f"layers.{at}.weight": block + at for at in range(num_matrices)},
        folder / "model.safetensors",
    )
    return folder


def digest(folder: Path, rounds: int) -> dict[str, Any]:
    """The inventory of a model against hashlib alone, in turns."""
    files = sorted(folder.glob("*.safetensors"))
    num_bytes = sum(path.stat().st_size for path in files)
    memory = os.urandom(min(CHUNK, num_bytes // num_cores()))

    def in_memory() -> None:
        with ThreadPoolExecutor(num_cores()) as pool:
            list(pool.map(lambda _: hashlib.sha256(memory), range(num_cores())))

    def on_disk() -> None:
        for path in files:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    seconds = rig.in_turns(
        {"ours": lambda: take_inventory(folder), "memory": in_memory, "file": on_disk},
        rounds=rounds,
        warm_up=1,
    )
    # every byte counts once as part of a file and once as part of a tensor
    ours = [2 * num_bytes / each for each in seconds["ours"]]
    limit = [num_cores() * len(memory) / each for each in seconds["memory"]]
    single = [num_bytes / each for each in seconds["file"]]
    return {
        "bytes": num_bytes,
        "bytes_per_second": statistics.median(ours),
        "of_memory_all_cores": statistics.median(a / b for a, b in zip(ours, limit, strict=True)),
        "of_file_digest_times_cores": statistics.median(
            a / (b * num_cores()) for a, b in zip(ours, single, strict=True)
        ),
    }


def in_process(*arguments: str) -> dict[str, Any]:
    """Seconds and peak memory of `reuselib <arguments>` in a process of its own; of `import torch` without any."""
    what = "from reuselib.cli import main; main(sys.argv[1:])" if arguments else "import torch"
    # asked of the process itself: what the system tells a parent includes the parent's own size when it forked
    peak = "next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))"
    code = f"import sys; {what}; sys.stdout.flush(); sys.stderr.write({peak})"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return {
        "seconds": time.perf_counter() - began,
        "peak_bytes": 1024 * int(done.stderr.split()[-1]),
        "output": done.stdout,
    }


def chain(store: Path, rounds: int) -> dict[str, Any]:
    """`prove` over the whole history of the youngest child of a store."""
    child = max((store / "models").iterdir(), key=lambda each: each.stat().st_mtime)
    runs = [in_process("prove", str(child), "--store", str(store), "--json") for _ in range(rounds)]
    proof = json.loads(runs[-1]["output"])
    largest = max(_tensor_sizes(child.parent), default=0)
    return {
        "tier": proof["tier"],
        "steps": {each["name"]: each["tier"] for each in proof["steps"]},
        "claims": sum(len(each["findings"]) for each in proof["steps"]),
        "seconds": statistics.median(each["seconds"] for each in runs),
        "peak_bytes": max(each["peak_bytes"] for each in runs),
        "largest_tensor_bytes": largest,
        "peak_bytes_of_torch_alone": in_process()["peak_bytes"],
    }


def _tensor_sizes(folder: Path) -> list[int]:
    from reuselib.lineage.headers import headers

    return [info.end - info.start for each in folder.iterdir() for info in headers(each).values()]


def trace(folder: Path, num_models: int, rounds: int) -> dict[str, Any]:
    """`trace --children` over a store of manifests."""
    fill_store(folder, num_models)
    runs = [in_process("trace", str(folder), "--children") for _ in range(rounds)]
    return {
        "models": num_models,
        "lines": runs[-1]["output"].count("\n"),
        "seconds": statistics.median(each["seconds"] for each in runs),
        "peak_bytes": max(each["peak_bytes"] for each in runs),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--store", type=Path, help="of the quickstart; without it, `chain` is left out"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small, to see that it works")
    parser.add_argument("--output", type=Path)
    told = parser.parse_args(arguments)
    num_bytes, num_models = (2**24, 20) if told.smoke else (2**30, 1000)
    result: dict[str, Any] = {"machine": rig.machine("safetensors")}
    with tempfile.TemporaryDirectory() as scratch:
        result["digest"] = digest(write_model(Path(scratch, "model"), num_bytes), told.rounds)
        result["trace"] = trace(Path(scratch, "store"), num_models, told.rounds)
    if told.store is not None:
        result["chain"] = chain(told.store, told.rounds)
    print(json.dumps({name: result[name] for name in result if name != "machine"}, indent=1))
    print(rig.keep(result, "evidence", told.output))


if __name__ == "__main__":
    main()
