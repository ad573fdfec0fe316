"""What does packing gain where texts are short?

A network of SmolLM2-135M's size trains on sentences of documentation (`sample:docstrings`), with the loop of reuselib.
The same rows go through the same optimizer steps in four ways, one after another and in another order each round:

- `padded`: batches at random, padded to their longest row, as most scripts have them;
- `packed`: the same batches, packed;
- `grouped`: batches of like length, padded, which is what reuselib does unless told otherwise;
- `grouped_packed`: these, packed.

Tokens are those of the texts, not of the padding. Run it on a machine that does nothing else:

    python benchmarks/packing.py --model smollm2        # a folder written by smollm2.py
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rig import faster_by, keep, machine

from reuselib.task import Examples
from reuselib.tasks.causal_lm import CausalLM
from reuselib.training.batching import costs, plan_batches
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.packing import laid_out
from reuselib.training.plan import FitPlan

TASK = CausalLM(max_length=256)
WAYS = {
    "padded": {"group_by_length": False, "packing": False},
    "packed": {"group_by_length": False, "packing": True},
    "grouped": {"group_by_length": True, "packing": False},
    "grouped_packed": {"group_by_length": True, "packing": True},
}


def lengths_of(train: Examples, plan: FitPlan, processor: Any, seed: int) -> dict[str, int]:
    """Tokens of the texts in the steps of a plan, and places in the tensors that hold them."""
    lengths = costs(train, TASK)
    assert lengths is not None
    batches = plan_batches(
        lengths if plan.group_by_length else None, len(train), plan.batch_size, seed=seed, epoch=0
    )[: plan.max_steps]
    tokens = sum(lengths[row] for rows in batches for row in rows)
    shapes = (
        laid_out(plan, TASK, processor, [train[row] for row in rows])["input_ids"].shape
        for rows in batches
    )
    return {"tokens": tokens, "places": sum(shape.numel() for shape in shapes)}


def compare(
    loaded: Any, train: Examples, *, rounds: int, steps: int, batch_size: int
) -> dict[str, Any]:
    """Tokens per second of each way in each round, and the ratios."""
    state = copy.deepcopy(loaded.module.state_dict())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in range(rounds):
        names = list(WAYS)
        for name in names[seed % len(names) :] + names[: seed % len(names)]:
            loaded.module.load_state_dict(state)
            plan = FitPlan(max_steps=steps, batch_size=batch_size, learning_rate=1e-4, **WAYS[name])
            told = lengths_of(train, plan, loaded.processor, seed)
            job = Job(task=TASK, processor=loaded.processor, train=train, seed=seed, trail=False)
            began = time.perf_counter()
            result = fit(loaded.module, plan, job)
            seconds = time.perf_counter() - began  # with the look whether rows are kept apart
            row = {
                "seconds": seconds,
                "tokens_per_second": told["tokens"] / seconds,
                "filled": told["tokens"] / told["places"],
                "loss": result.metrics["train_loss"],
            }
            found[name].append(row)
            print(json.dumps({"round": seed, "way": name, **row}), flush=True)
    return {"runs": found, "tokens_per_second_over": ratios(found)}


def ratios(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Of what is packed over what is padded, within each round."""

    def of(name: str) -> list[float]:
        return [1 / run["tokens_per_second"] for run in found[name]]

    return {
        "packed over padded": faster_by(of("padded"), of("packed")),
        "packed over grouped": faster_by(of("grouped"), of("packed")),
        "grouped_packed over grouped": faster_by(of("grouped"), of("grouped_packed")),
        "grouped_packed over padded": faster_by(of("padded"), of("grouped_packed")),
    }


def real_rows(processor: Any, num_rows: int) -> Examples:
    """The first training rows."""
    from reuselib.data import Data

    train = Data(source="sample:docstrings").load().train
    return TASK.encode([train[row] for row in range(num_rows)], processor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--model", type=Path, help="folder written by smollm2.py")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    if not options.smoke and options.model is None:
        parser.error("name the model's folder with --model, see smollm2.py")
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            from reuselib.testing.tiny import tiny_llama, tiny_rows

            loaded = TASK.load(tiny_llama(Path(folder) / "model"))
            train = TASK.encode(tiny_rows(options.batch_size * 2), loaded.processor)
        else:
            loaded = TASK.load(options.model)
            train = real_rows(loaded.processor, options.rows)
        figures = compare(
            loaded, train, rounds=options.rounds, steps=options.steps, batch_size=options.batch_size
        )
    lengths = costs(train, TASK) or []
    result = {
        "machine": machine(),
        "batch_size": options.batch_size,
        "tokens_per_text": {"mean": statistics.mean(lengths), "longest": max(lengths)},
        **figures,
    }
    print(json.dumps({k: v["median"] for k, v in figures["tokens_per_second_over"].items()}))
    if options.output or not options.smoke:
        keep(result, "packing", options.output)


if __name__ == "__main__":
    main()
