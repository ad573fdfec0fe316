"""What memory a process takes for a full fine-tune: one process, two with whole copies, two with shares (FSDP2).

A Llama-like network of random weights, fp32, AdamW, on the CPU. Each figure is the most that a process held beyond what
it held with everything imported, in units of the network's own size: 1 for weights, 1 for gradients, 2 for moments, and
what an exchange of gradients or of weights takes. Losses must be the same, since all do the same steps. Beside each
stands what `reuselib check` would say.

The C library keeps memory that was freed in pieces below 32 MB, however little of it is still in use, and that hides
what shares save: their pieces are smaller. So it is told to give back whatever is larger than 128 KB, for all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rig import keep, machine
from torch import nn

from reuselib.data import Splits
from reuselib.derivation.sketch import Sketch
from reuselib.derivation.trainings import of_fit
from reuselib.measure.heap import of_module
from reuselib.measure.memory import peak_memory
from reuselib.task import Batch
from reuselib.tasks.causal_lm import CausalLM
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import FitPlan

SHARES = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SETTINGS: dict[str, tuple[int, dict[str, str]]] = {
    "one process": (1, {}),
    "two whole copies": (2, {}),
    "two shares": (2, SHARES),
}
LIMIT = 900
"""Seconds for one setting."""


@dataclass(frozen=True)
class Rows(CausalLM):
    """Rows that are encoded already; next to nothing beside the weights."""

    def collate(self, examples: Any, processor: object) -> Batch:
        ids = torch.tensor(examples)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    def length(self, example: Any) -> int:
        return len(example)


def network(num_layers: int) -> nn.Module:
    """About 5 million parameters for each layer, and as many for the embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8000,
            hidden_size=640,
            intermediate_size=1728,
            num_hidden_layers=num_layers,
            num_attention_heads=10,
            num_key_value_heads=10,
            tie_word_embeddings=True,
        )
    )


def estimated(num_layers: int, precision: str, name: str) -> float:
    """What `reuselib check` says of a setting, in copies of the weights: without what the process takes anyway."""
    with torch.device("meta"):
        module = network(num_layers)
    rows = job().train
    run = Sketch(
        task=Rows(),
        rows=Splits.of([{"ids": each} for each in rows], [{"ids": rows[0]}]),
        processor=None,
        seed=0,
        device=torch.device("cpu"),
        open=lambda _: module,
        num_processes=SETTINGS[name][0],
        encoded={"train": rows},
    )
    training = of_fit(run, module, plan(3, precision), None, None)
    taken = training.weights + training.kept + training.step.peak
    if SETTINGS[name][0] == 1:
        taken = taken + training.learned  # started by torchrun, it exchanges gradients with itself
    if SETTINGS[name][1] is SHARES:
        assert training.sharded is not None
        taken = training.sharded
    return taken.total / of_module(module).total


def plan(num_steps: int, precision: str) -> FitPlan:
    """Two rows in each step, over all processes."""
    return FitPlan(max_steps=num_steps, batch_size=2, learning_rate=1e-4, precision=precision)


def measure(num_layers: int, num_steps: int, precision: str) -> dict[str, Any]:
    """In this process: the network's size, what it took to make and train it, and how it went."""
    fit(network(1), plan(1, precision), job())  # imports everything
    before = resident()
    module = network(num_layers)
    num_bytes = sum(part.numel() * part.element_size() for part in module.parameters())
    with peak_memory() as peak:
        result = fit(module, plan(num_steps, precision), job())
    assert peak.num_bytes is not None
    return {
        "bytes": num_bytes,
        "peak": (peak.num_bytes - before) / num_bytes,
        "after": (resident() - before) / num_bytes,
        "loss": result.metrics["train_loss"],
        "seconds_per_step": result.metrics["seconds"] / num_steps,
    }


def job() -> Job:
    """16 rows of 16 tokens."""
    rows = torch.randint(0, 8000, (16, 16), generator=torch.Generator().manual_seed(0)).tolist()
    return Job(task=Rows(), processor=None, train=rows, trail=False)


def resident() -> int:
    """Bytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(name: str, num_layers: int, num_steps: int, precision: str) -> list[dict[str, Any]]:
    """What each process of a setting measured, in order of rank."""
    num_processes, variables = SETTINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        launcher = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={num_processes}",
        ]
        own = [__file__, "--layers", str(num_layers), "--steps", str(num_steps)]
        own += ["--precision", precision, "--into", folder]
        subprocess.run(
            [sys.executable, *launcher, *own],
            env={
                **os.environ,
                "ACCELERATE_USE_CPU": "true",
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
                "MALLOC_MMAP_THRESHOLD_": str(2**17),
                **variables,
            },
            check=True,
            timeout=LIMIT,
        )
        return [json.loads(file.read_text()) for file in sorted(Path(folder).iterdir())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into is not None:
        found = measure(options.layers, options.steps, options.precision)
        (options.into / f"{int(os.environ['RANK']):03d}.json").write_text(json.dumps(found))
        return
    rounds: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in SETTINGS}
    for _ in range(options.rounds):
        for name in SETTINGS:
            rounds[name].append(run(name, options.layers, options.steps, options.precision))
    results: dict[str, Any] = {}
    for name, runs in rounds.items():
        every = [each for ranks in runs for each in ranks]
        results[name] = {
            "megabytes": every[0]["bytes"] / 1e6,
            "estimated": estimated(options.layers, options.precision, name),
            **{
                figure: statistics.median(each[figure] for each in every)
                for figure in ("peak", "after", "loss", "seconds_per_step")
            },
        }
        figures = results[name]
        print(
            f"{name:17} {figures['megabytes']:.0f} MB: at most {figures['peak']:.2f}x,"
            f" estimated {figures['estimated']:.2f}x, afterwards {figures['after']:.2f}x,"
            f" loss {figures['loss']:.6f}, {figures['seconds_per_step']:.2f} s a step"
        )
    keep({"machine": machine("accelerate"), "results": results}, "sharding", options.output)


if __name__ == "__main__":
    main()
