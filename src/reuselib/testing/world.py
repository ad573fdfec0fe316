"""The law that world size is invisible: an adapter applied by one process and by two, on the same global batches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import LawBroken

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.testing.bench import Bench

NUM_PROCESSES = 2
TOLERANCE = 1e-6
"""Largest allowed difference of an fp32 weight: the order in which gradients are summed is not the same."""


def check_world_size(bench: Bench) -> None:
    """One process and two, same global batch: weights equal within 1e-6.

    Dropout is set to 0 for this: each process draws its own masks, as each row should have its own.
    """
    bench = _without_dropout(bench)
    parent = bench.base
    if bench.before:
        parent = bench.execute(steps=bench.before).children[-1].folder
    alone, together = bench.folder / "alone.safetensors", bench.folder / "together.safetensors"
    if not apply(bench, parent, alone):
        return  # does not train, so there is nothing to share out
    _apply_together(bench, parent, together)
    one, other = _read(alone), _read(together)
    if one.keys() != other.keys():
        raise LawBroken(
            "world_size",
            f"{min(one.keys() ^ other.keys())} is there with one process or with two only",
        )
    for name, value in one.items():
        error = float((value.double() - other[name].double()).abs().max()) if value.numel() else 0.0
        if not error <= TOLERANCE:
            raise LawBroken(
                "world_size", f"{name} differs by {error:.1e} between one process and two"
            )


def _without_dropout(bench: Bench) -> Bench:
    folder = bench.folder / "world"
    base = folder / "base"
    shutil.copytree(bench.base, base)
    config = json.loads((base / "config.json").read_text())
    calm = {k: 0.0 if "drop" in k and isinstance(v, float) else v for k, v in config.items()}
    (base / "config.json").write_text(json.dumps(calm))
    return replace(bench, base=base, folder=folder)


def apply(bench: Bench, parent: Path, target: Path) -> bool:
    """Apply the adapter to the model in `parent` and write the resulting weights; whether it trained."""
    import torch.distributed as dist

    from reuselib.derivation.session import Encoded, Session
    from reuselib.derivation.teacher import Teacher
    from reuselib.lineage.store import Store
    from reuselib.lineage.tensors import save_tensors
    from reuselib.model.opening import open_network
    from reuselib.training.seeds import seeded

    splits = bench.data.load()
    task, store = bench.task.pin(splits), Store.default(bench.folder / "store")
    with seeded(0):
        opened = open_network(parent, task, store)
    session = Session(
        task=task,
        rows=splits,
        encoded=Encoded(task, opened.processor),
        seed=0,
        store=store,
        # without an identity, so that each process computes for itself what it says
        origin_teacher=Teacher((), lambda: open_network(parent, task, store)),
    )
    with seeded(0):
        module = bench.adapter.adapt(opened.module, session.with_fresh(opened.fresh)).module
    if not dist.is_initialized() or dist.get_rank() == 0:
        state: dict[str, Tensor] = {n: v.detach().clone() for n, v in module.state_dict().items()}
        save_tensors(state, target)
    return bool(session.settled)


def _apply_together(bench: Bench, parent: Path, target: Path) -> None:
    """The same in two processes, started anew: a process that has run torch must not be forked."""
    job = bench.folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "adapter": bench.adapter.describe(),
                "task": bench.task.describe(),
                "data": bench.data.source,
                "folder": str(bench.folder),
                "parent": str(parent),
                "target": str(target),
            }
        )
    )
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={NUM_PROCESSES}"]
    done = subprocess.run(
        [sys.executable, *command, "-m", "reuselib.testing.world", str(job)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        lines = [
            line for line in done.stderr.splitlines() if "Error" in line
        ] or done.stderr.splitlines()
        raise LawBroken(
            "world_size",
            f"{NUM_PROCESSES} processes failed: {lines[0] if lines else done.returncode}",
        )


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def main(job: Path) -> None:
    """One of the processes."""
    from reuselib.data import Data
    from reuselib.testing.bench import Bench
    from reuselib.values.named import parse_adapter, parse_task

    told = json.loads(job.read_text())
    bench = Bench(
        adapter=parse_adapter(told["adapter"]),
        before=(),
        base=Path(told["parent"]),
        task=parse_task(told["task"]),
        data=Data(source=told["data"]),
        folder=Path(told["folder"]),
    )
    apply(bench, bench.base, Path(told["target"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
