"""A program that becomes 1, 2 and 3 processes, which carry out recipes one after another and note what they encoded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.measure.latency import Protocol
from reuselib.recipe import Recipe
from reuselib.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from torch import nn

    from reuselib.training.plan import FitPlan

QUICK = Protocol(rounds=3, max_calls=1, seconds=0.0, attempts=1, warm_up=0)
REASON = "this is the third micro-batch of the second process"
SIZES = (1, 2, 3)


def work(recipes: list[str], store: Path, rank: int) -> None:
    """Carry out recipes, and note ids and how many rows were encoded in the store."""
    counted, encode = [], TextClassification.encode

    def counting(self, rows, processor):
        counted.append(len(rows))
        return encode(self, rows, processor)

    TextClassification.encode = counting
    ids = []
    try:
        for text in recipes:
            done = execute(Recipe.parse(text).plan(store=store), Runtime(protocol=QUICK))
            ids.append([child.folder.name for child in done.children])
    finally:
        TextClassification.encode = encode
    (store / f"note-{rank}.json").write_text(json.dumps({"ids": ids, "encoded": counted}))


def rounding(recipe: Recipe, fit: FitPlan, store: Path, *, double: bool) -> nn.Module:
    """Train with the rounding of int8 in it, not as a step but as a plain call; `double` is in 64 bits."""
    from torch.nn.functional import cross_entropy

    from reuselib.adapters.quantize import Quantize
    from reuselib.derivation.session import begin
    from reuselib.quantization.faking import _Through

    def loss(self, logits, batch):
        return cross_entropy(logits, batch["labels"], reduction="sum")

    # steps of the grid are told in 32 bits; all else is as wide as the network
    _Through.forward = staticmethod(lambda ctx, values, rounded: rounded.to(values.dtype))
    TextClassification.loss = loss

    plan = recipe.plan(store=store)
    opened, session = begin(plan, plan.base.folder)
    module, adapter = opened.module, Quantize(fit=fit)
    if double:
        module.double()
    adapter._train(module, session, adapter._planned(module, session)[1])
    return module


def fail(recipe: Path, store: Path, rank: int) -> int:
    """A run of the command line in which the second process fails while it trains; the exit code."""
    from reuselib.cli import main
    from reuselib.errors import TrainingError

    loss, calls = TextClassification.loss, []

    def failing(self, logits, batch):
        calls.append(None)
        if rank == 1 and len(calls) == 3:
            raise TrainingError(REASON)
        return loss(self, logits, batch)

    TextClassification.loss = failing
    try:
        return main(["run", str(recipe), "--store", str(store)])
    finally:
        TextClassification.loss = loss


def main(folder: Path) -> None:
    """Carry out what `folder` asks for in all numbers of processes at once."""
    import torch_pruning  # noqa: F401

    from ranks import fork
    from reuselib.lineage.tensors import save_tensors
    from reuselib.training.plan import FitPlan

    told: dict[str, Any] = json.loads((folder / "job.json").read_text())
    recipe, fit = Recipe.parse(told["recipes"]["1"][0]), FitPlan(**told["fit"])

    def live(size: int, rank: int) -> int:
        store = folder / f"store-{size}"
        work(told["recipes"][str(size)], store, rank)
        for name, double in (("single", False), ("double", True)):
            module = rounding(recipe, fit, store, double=double)
            if rank == 0:
                save_tensors(dict(module.state_dict()), store / f"{name}.safetensors")
        return fail(folder / "failing.yaml", store / "failing", rank) if size == 3 else 0

    codes = fork(SIZES, live, folder)
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
