"""Small derivations that the tests of several rooms look at, and what plain libraries say about the same folders."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reuselib.adapter import Adapter
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import Child, Execution, execute
from reuselib.derivation.plan import Plan, plan
from reuselib.lineage.store import Store
from reuselib.task import Task
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_rows
from reuselib.training.plan import FitPlan

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2, precision="fp32")
LORA, MERGE, TUNE = LoRA(r=2, fit=SHORT), Merge(), FineTune(train=("head", "block[-1:]"), fit=SHORT)


def text_rows() -> Splits:
    return Splits.of(tiny_rows(32), tiny_rows(16, seed=1))


def other_labels() -> Splits:
    """The same texts with three labels."""
    rows = [
        {**row, "label": ("mild", row["label"])[number % 3 > 0]}
        for number, row in enumerate(tiny_rows(48))
    ]
    return Splits.of(rows, rows[:8])


@dataclass(frozen=True)
class Chain:
    """A base without a head, and what three steps made of it."""

    base: Path
    store: Path
    rows: Splits
    execution: Execution

    @property
    def lora(self) -> Child:
        return self.execution.children[0]

    @property
    def merged(self) -> Child:
        return self.execution.children[1]

    @property
    def tuned(self) -> Child:
        return self.execution.children[2]

    def plan(
        self,
        steps: Sequence[Adapter] = (LORA, MERGE, TUNE),
        store: Path | None = None,
        **other: Any,
    ) -> Plan:
        """The same inputs again, or with something changed."""
        inputs = {"base": self.base, "task": TextClassification(), "data": self.rows, **other}
        return plan(steps=steps, store=store or self.store, **inputs)

    def copied_store(self, folder: Path) -> Path:
        """A store of one's own to damage."""
        target = folder / "copied-store"
        shutil.copytree(self.store / "models", target / "models")
        Store(target).remember_root(self.execution.plan.base.manifest.digests.dir_hash, self.base)
        for child in self.execution.children:
            Store(target).remember_root(
                child.manifest.digests.dir_hash, target / "models" / child.folder.name
            )
        return target


def text_chain(folder: Path) -> Chain:
    base, store, rows = tiny_bert(folder / "base"), folder / "store", text_rows()
    settled = plan(base, (LORA, MERGE, TUNE), task=TextClassification(), data=rows, store=store)
    return Chain(base, store, rows, execute(settled, Runtime()))


def run(
    steps: Adapter | Sequence[Adapter],
    base: Any,
    store: Path,
    *,
    data: Any,
    task: Task | None = None,
) -> Execution:
    settled = plan(base, steps, task=task or TextClassification(), data=data, store=store)
    return execute(settled, Runtime())


def plain_peft(auto: Any, base: Path, child: Path, **options: Any) -> Any:
    """An adapter as peft alone opens it."""
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings():
        # peft's own, see `LoRA.rebuild`
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return PeftModel.from_pretrained(auto.from_pretrained(base, **options), child).eval()


def plain_text_logits(module: Any, tokenizer_folder: Path, texts: Sequence[str]) -> Any:
    """What transformers alone computes, texts in one batch."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    batch = tokenizer(
        list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt"
    )
    with torch.inference_mode():
        return module.eval()(**batch).logits


def flip(path: Path, at: int = -1) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def modified(folder: Path) -> dict[str, int]:
    """When each file of a folder was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))
    }
