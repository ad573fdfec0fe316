"""`Model`: a network, what prepares its inputs, and the record of how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.adapter import ModelRef
from reuselib.errors import SourceError
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.output import deliver
from reuselib.lineage.store import Store
from reuselib.model.figures import Figures, read_figures
from reuselib.model.opening import open_network
from reuselib.model.source import resolve
from reuselib.task import Processor, Rows, Task
from reuselib.values.named import parse_task

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Model:
    """A model with its history. What `derive` returns, and what it takes as a base."""

    module: nn.Module
    """In evaluation mode."""
    processor: Processor
    """Tokenizer or image processor; None for a plain module."""
    task: Task
    manifest: Manifest
    folder: Path
    """Where its files are; they never change."""
    ref: ModelRef
    """What names it, pinned: what a derivation from it opens and records."""

    @classmethod
    def load(
        cls, source: str | Path | ModelRef, *, task: Task | None = None, store: Path | None = None
    ) -> Model:
        """Open a model, whose bytes must match its manifest if it has one.

        Args:
            source: a folder, hub id, `package:...`, `store:...`, or a reference to one.
            task: what it is for; default: what its manifest says.
            store: where the base of an adapter-only child is looked for.

        Raises:
            SourceError: it cannot be found, or has no manifest and no task was given.
            IntegrityError: its bytes do not match its record.
        """
        ref = source if isinstance(source, ModelRef) else ModelRef(str(source))
        if isinstance(source, Path):
            ref = ModelRef(str(source.absolute()))
        place = Store.default(store)
        pinned = resolve(ref, place)
        task = task or recorded_task(pinned.manifest)
        opened = open_network(pinned.folder, task, place, trust_remote_code=ref.trust_remote_code)
        named = pinned.ref
        if named.source.startswith("./"):
            # the pinned name of a folder is what may be recorded, not where it is
            named = replace(named, source=str(pinned.folder))
        return cls(opened.module, opened.processor, task, pinned.manifest, pinned.folder, named)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Copy the model's files, with its lineage, to `folder`.

        Raises:
            StoreError: it exists already, or cannot be written.
        """
        deliver(self.folder, Path(folder), overwrite=overwrite)

    def logits(self, rows: Rows) -> Tensor:
        """The network's outputs for raw rows, fp32 on the CPU, in their order: [rows, ...]."""
        from reuselib.training.evaluate import logits

        return logits(
            self.module, self.task.encode(rows, self.processor), self.task, self.processor
        )

    def predict(self, rows: Rows) -> list[Any]:
        """What the outputs say in the task's own terms, such as label names: one entry a row."""
        return self.task.answers(self.logits(rows))

    def evaluate(self, rows: Rows) -> dict[str, float]:
        """The task's metrics over raw rows with targets."""
        from reuselib.training.evaluate import evaluate

        return evaluate(
            self.module, self.task.encode(rows, self.processor), self.task, self.processor
        )

    @cached_property
    def figures(self) -> Figures:
        """Metrics before and after the step that made the model, its cost, and more; empty for a base."""
        return read_figures(self.folder)


def recorded_task(manifest: Manifest) -> Task:
    """The task that a manifest names.

    Raises:
        SourceError: it names none, or one that only Python can say.
    """
    described: Mapping[str, Any] | None = manifest.definition.task
    if described is None or "module" in described:
        said = (
            "does not say which task it is for"
            if described is None
            else "is for a task that only Python can say"
        )
        raise SourceError(
            f"{manifest.name} {said}",
            expected="a task",
            fix="give it: Model.load(..., task=TextClassification())",
        )
    return parse_task(described)
