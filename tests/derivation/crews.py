"""What 1, 2 and 3 processes make of the same recipes, and what their records may differ in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import crew

import ranks
from reuselib.adapter import Adapter, ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.calibration.plan import Calibration
from reuselib.data import Data
from reuselib.lineage.tensors import Tensors
from reuselib.recipe import Recipe
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_bert
from reuselib.training.lessons import Losses
from reuselib.training.plan import EarlyStopping, FitPlan

LONG: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 10,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "precision": "fp32",
}
"""No number of processes divides its batches of 10 evenly, and the last one of each epoch is short."""
FIT = FitPlan(**LONG)
SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-3, precision="fp32")
ROWS = Calibration(num_rows=48)

TRAINED: dict[str, Adapter] = {
    "finetune": FineTune(fit=replace(FIT, early_stopping=EarlyStopping())),
    "lora": LoRA(r=2, lora_dropout=0.0, fit=FIT),
    "distil": Distill(losses=Losses(logits=0.5, task=0.5), fit=FIT),
    # four steps, for what `test_rounding_makes_more_of_a_last_bit_and_nothing_else_does` shows of fourteen
    "qat": Quantize(fit=SHORT),
}
CALIBRATED: dict[str, Adapter] = {
    "gptq": Quantize(method="gptq", calibration=ROWS),
    "awq": Quantize(scheme="int4-weight", group_size=16, method="awq", calibration=ROWS),
    "smoothquant": Quantize(smooth=0.5, calibration=ROWS),
    "wanda": Sparsify(sparsity=0.5, method="wanda", calibration=ROWS),
    "sparsegpt": Sparsify(sparsity=0.5, method="sparsegpt", calibration=ROWS),
    "taylor": Prune(ffn=0.5, importance="taylor", calibration=ROWS),
}
STEPS = {**TRAINED, **CALIBRATED}

MAY_DIFFER = {
    "world size": ("buildDefinition", "internalParameters", "worldSize"),
    "threads": ("buildDefinition", "internalParameters", "facts", "num_threads"),
    "start": ("runDetails", "metadata", "startedOn"),
    "end": ("runDetails", "metadata", "finishedOn"),
    "invocation": ("runDetails", "metadata", "invocationId"),
    "digests of trail, figures and environment": ("runDetails", "byproducts"),
}
"""In the records of two numbers of processes, besides digests of the weights."""


def steps(size: int) -> list[str]:
    """What is done in so many processes: three of them only train, for the sake of time."""
    return list(TRAINED if size == 3 else STEPS)


@dataclass(frozen=True)
class Crews:
    """What each number of processes made of the recipes; they work when something of that is asked for."""

    inputs: Path
    """A folder with the base and the rows."""
    start: Callable[[], Path]
    """Gives the folder with all that was made."""

    @property
    def recipes(self) -> dict[str, Recipe]:
        base, rows = ModelRef(str(self.inputs / "base")), Data(source=str(self.inputs / "rows"))
        return {
            name: Recipe(base=base, task=TextClassification(), data=rows, steps=(step,))
            for name, step in STEPS.items()
        }

    @cached_property
    def folder(self) -> Path:
        return self.start()

    def work(self, folder: Path) -> None:
        """Let all of them work."""
        recipes = self.recipes
        texts = {size: [recipes[name].to_yaml() for name in steps(size)] for size in crew.SIZES}
        for size in crew.SIZES:
            (folder / f"store-{size}").mkdir()
        (folder / "job.json").write_text(json.dumps({"recipes": texts, "fit": LONG}))
        (folder / "failing.yaml").write_text(replace(recipes["lora"], seed=1).to_yaml())
        ranks.run(Path(crew.__file__), folder)

    def codes(self, size: int) -> list[int]:
        """With what the processes ended, by rank."""
        return json.loads((self.folder / "codes.json").read_text())[str(size)]

    def said(self, size: int, rank: int = 0) -> str:
        """What a process wrote to the terminal."""
        return ranks.said(self.folder, size, rank).read_text()

    def store(self, size: int) -> Path:
        return self.folder / f"store-{size}"

    def child(self, name: str, size: int) -> Path:
        ids = self.note(size)["ids"][steps(size).index(name)]
        return self.store(size) / "models" / ids[-1]

    def note(self, size: int, rank: int = 0) -> dict[str, Any]:
        """Ids of its children, and how many rows it encoded each time."""
        note = self.store(size) / f"note-{rank}.json"
        assert note.exists(), "\n".join(self.said(size, each) for each in range(size))
        return json.loads(note.read_text())


def write_inputs(folder: Path) -> None:
    """A base without dropout, whose masks each process draws by itself, and rows."""
    base = tiny_bert(folder / "base", head=True)
    config = json.loads((base / "config.json").read_text())
    calm = {k: 0.0 if "dropout" in k and v else v for k, v in config.items()}
    (base / "config.json").write_text(json.dumps(calm))
    write_rows(folder / "rows")


def tensors(folder: Path) -> dict[str, Any]:
    found = Tensors(folder)
    return {name: found[name] for name in found}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "lineage/manifest.json").read_text())["predicate"]


def figures(folder: Path) -> dict[str, float]:
    told = json.loads((folder / "lineage/metrics.json").read_text())
    return {**told["after"], **told["quality"]}


def different(one: Any, other: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted(one.keys() | other.keys())
        return [
            each
            for name in names
            for each in different(one.get(name), other.get(name), (*path, name))
        ]
    return [] if one == other else [path]


def may_differ(path: tuple[str, ...]) -> bool:
    """Whether a place in a record is one of those that differ, or within one."""
    return any(path[: len(known)] == known for known in MAY_DIFFER.values())
