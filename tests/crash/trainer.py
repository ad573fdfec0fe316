"""The same kills against the checkpoint folder of transformers' `Trainer`: `python tests/crash/trainer.py --kills 60`.

A tiny model trains with a checkpoint after each step and is killed at a random moment or at a write; then training goes
on as its documentation says, from `get_last_checkpoint`. Counted is how often that fails, and how often it ends in other
weights than a training that nobody disturbed. What `torch.save` writes is written through Python here, so that it can be
killed in the middle as well; where and in which order stays the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from crash.server import Ended, Job, Server

DIGEST = "weights.sha256"
"""What a training that ended has."""


def work(folder: Path) -> int:
    """Train, from the last checkpoint if there is one; in a process of its own."""
    import torch
    from transformers import (
        AutoTokenizer,
        BertForSequenceClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )
    from transformers.trainer_utils import get_last_checkpoint

    _save_through_python()
    base = folder.parent / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    lines = (folder.parent / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    encoded = [
        {
            **tokenizer(row["text"], padding="max_length", max_length=16),
            "labels": int(row["label"] == "good"),
        }
        for row in rows
    ]
    set_seed(0)
    model = BertForSequenceClassification.from_pretrained(base)
    where = folder / "disk"
    told = TrainingArguments(
        output_dir=str(where),
        num_train_epochs=5,
        per_device_train_batch_size=16,
        save_steps=1,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
    )
    last = get_last_checkpoint(str(where)) if where.is_dir() else None
    trainer = Trainer(model=model, args=told, train_dataset=encoded)
    trainer.train(resume_from_checkpoint=last)
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    (folder / DIGEST).write_text(digest.hexdigest(), encoding="utf-8")
    return 0


def _save_through_python() -> None:
    import torch

    original = torch.save

    def save(value: object, file: object, *rest: object, **options: object) -> None:
        if isinstance(file, (str, Path)):
            with open(file, "wb") as stream:
                original(value, stream, *rest, **options)
        else:
            original(value, file, *rest, **options)

    torch.save = save


def compare(num_kills: int, seed: int) -> dict[str, Any]:
    """Kill, go on, count."""
    counts: dict[str, Any] = dict.fromkeys(
        ("kills", "as undisturbed", "failed on resume", "other weights"), 0
    )
    reasons: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory(prefix="crash-") as name,
        Server(Path(name) / "server") as server,
    ):
        root = Path(name)
        _must(server.run(Job(arguments=[str(root)], watched=root / "nothing", work="build")))
        _must(_train(server, root / "first"))
        server.restart()
        ended = _must(_train(server, root / "undisturbed"))
        expected = (root / "undisturbed" / DIGEST).read_text()
        draw, started = random.Random(seed), time.monotonic()
        assert ended.num_operations
        while counts["kills"] < num_kills and time.monotonic() - started < 20 * num_kills:
            place = root / "place"
            shutil.rmtree(place, ignore_errors=True)
            if draw.random() < 0.5:
                killed = _train(server, place, kill_after=draw.random() * ended.seconds)
            else:
                killed = _train(
                    server, place, mishap=(draw.randrange(ended.num_operations), "kill")
                )
            if killed.code is not None:
                continue
            counts["kills"] += 1
            again = _train(server, place)
            if again.code != 0:
                counts["failed on resume"] += 1
                reason = _reason(again, place)
                reasons[reason] = reasons.get(reason, 0) + 1
            elif (place / DIGEST).read_text() != expected:
                counts["other weights"] += 1
            else:
                counts["as undisturbed"] += 1
    return {**counts, "reasons": reasons}


def in_words(figures: dict[str, Any]) -> str:
    """One line of counts, and one for each reason."""
    reasons = sorted(figures["reasons"].items(), key=lambda each: -each[1])
    counts = ", ".join(f"{what}: {number}" for what, number in figures.items() if what != "reasons")
    return "\n".join([counts, *(f"  {number} x {reason}" for reason, number in reasons)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    figures = compare(options.kills, options.seed)
    sys.stdout.write(f"{in_words(figures)}\n")
    return 0 if figures["kills"] >= options.kills else 1


def _train(
    server: Server,
    place: Path,
    *,
    mishap: tuple[int, str] | None = None,
    kill_after: float | None = None,
) -> Ended:
    (place / "disk").mkdir(parents=True, exist_ok=True)
    job = Job(
        arguments=[str(place)],
        watched=place / "disk",
        work="trainer",
        mishap=mishap,
        kill_after=kill_after,
    )
    return server.run(job)


def _reason(ended: Ended, place: Path) -> str:
    """The last line, without what differs from kill to kill."""
    line = ended.said.strip().rpartition("\n")[2].replace(f"{place}/disk/", "")
    return re.sub("checkpoint-[0-9]+", "checkpoint-n", line)[:160]


def _must(ended: Ended) -> Ended:
    if ended.code != 0:
        raise RuntimeError(f"an undisturbed training failed: {ended.said[-3000:]}")
    return ended


if __name__ == "__main__":
    sys.exit(main())
