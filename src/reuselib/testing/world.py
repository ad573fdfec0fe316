"""The law that world size is invisible: the same derivation by one process and by several, on the same batches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import LawBroken, StoreError
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.testing.bench import Bench

NUM_PROCESSES = 2
TOLERANCE = 1e-6
"""Largest allowed difference of an fp32 weight: the order in which gradients are summed is not the same."""
EDGE = 1e-3
"""Largest allowed part of integer weights that differ, by one: those that were rounded from the very middle."""
SECONDS = 300
"""After so long, processes count as hanging."""


def check_world_size(bench: Bench, num_processes: int = NUM_PROCESSES) -> None:
    """One process and several, same global batch: weights equal within 1e-6.

    Dropout is set to 0 for this: each process draws its own masks, as each row should have its own. Training is in
    fp32: a sum that bf16 rounds may fall to its other neighbour, which is far more than 1e-6.
    """
    bench = _in_fp32(_without_dropout(bench))
    child = bench.execute(store="alone").children[-1]
    internal = child.manifest.definition.internal
    if internal is None or not internal.facts:
        return  # does not train, so there is nothing to share out
    folder = derive_together(bench, num_processes)
    compare(_read(child.folder), _read(folder), num_processes)


def compare(alone: Mapping[str, Tensor], together: Mapping[str, Tensor], size: int) -> None:
    """Hold the tensors of two children against each other.

    Raises:
        LawBroken: `world_size`, they are not the same weights.
    """
    if alone.keys() != together.keys():
        name = min(alone.keys() ^ together.keys())
        raise LawBroken("world_size", f"{name} is there with one process or with {size} only")
    for name, value in alone.items():
        if not value.numel():
            continue
        errors = (value.double() - together[name].double()).abs()
        error = float(errors.max())
        if not value.is_floating_point():
            odd = float((errors > 0).double().mean())
            if error <= 1 and odd <= EDGE:
                continue
        if not error <= TOLERANCE:
            raise LawBroken(
                "world_size", f"{name} differs by {error:.1e} between one process and {size}"
            )


def _without_dropout(bench: Bench) -> Bench:
    folder = bench.folder / "world"
    base = folder / "base"
    if not base.exists():
        shutil.copytree(bench.base, base)
        config = json.loads((base / "config.json").read_text())
        calm = {k: 0.0 if "drop" in k and isinstance(v, float) else v for k, v in config.items()}
        (base / "config.json").write_text(json.dumps(calm))
    return replace(bench, base=base, folder=folder)


def _in_fp32(bench: Bench) -> Bench:
    """`precision: auto` may be bf16 on this machine, so every plan of a training names fp32."""
    before, adapter = tuple(_named(each) for each in bench.before), _named(bench.adapter)
    return replace(bench, before=before, adapter=adapter)


def _named(adapter: Any) -> Any:
    values = {each.name: getattr(adapter, each.name) for each in fields(adapter)}
    plans = {name: value for name, value in values.items() if isinstance(value, FitPlan)}
    return replace(
        adapter, **{name: replace(plan, precision="fp32") for name, plan in plans.items()}
    )


def derive_together(bench: Bench, num_processes: int) -> Path:
    """The last step of the bench's chain in several processes, over what `alone` holds before it; the child's folder.

    They are started anew: a process that has run torch must not be forked.
    """
    store = bench.folder / f"store-{num_processes}"
    shutil.copytree(bench.folder / "alone", store)
    plan = bench.plan(store=store.name)
    last = plan.finished()[-1]
    shutil.rmtree(last)  # under the same name it will be made anew
    job = bench.folder / "job.json"
    job.write_text(json.dumps({"recipe": bench.recipe.to_yaml(), "store": str(store)}))
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "reuselib.testing.world", str(job), str(num_processes)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        lines = [
            line for line in done.stderr.splitlines() if "Error" in line
        ] or done.stderr.splitlines()
        raise LawBroken(
            "world_size",
            f"{num_processes} processes failed: {lines[0] if lines else done.returncode}",
        )
    return last


def _read(folder: Path) -> dict[str, Tensor]:
    from reuselib.lineage.tensors import Tensors

    tensors = Tensors(folder)
    return {name: tensors[name] for name in tensors}


def main(job: Path, num_processes: int) -> int:
    """Start the processes, or be one of them."""
    from reuselib.derivation.derive import Runtime
    from reuselib.derivation.execution import execute
    from reuselib.recipe import Recipe
    from reuselib.training.launch import PROCESSES, launch

    if PROCESSES not in os.environ:
        command = [sys.executable, "-m", "reuselib.testing.world", str(job), str(num_processes)]
        return launch(command, num_processes, cpu=True)
    told = json.loads(job.read_text())
    plan = Recipe.parse(told["recipe"]).plan(store=Path(told["store"]))
    if len(plan.finished()) == len(plan.steps):
        raise StoreError("there is nothing left to do together")
    execute(plan, Runtime())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
