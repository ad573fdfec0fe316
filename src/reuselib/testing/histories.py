"""Records without weights: manifests that refer to one another as real ones do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reuselib.adapter import as_json
from reuselib.adapters.finetune import FineTune
from reuselib.lineage import canonical
from reuselib.lineage.chain import ANCESTORS
from reuselib.lineage.definition import Definition, Internal
from reuselib.lineage.descriptors import Descriptor, Parent
from reuselib.lineage.details import Details
from reuselib.lineage.digest import Digests
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.record import CHECKSUMS, ENVIRONMENT, METRICS, TENSORS
from reuselib.training.plan import FitPlan

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def digest(text: str) -> str:
    """A digest that is like no other."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Model:
    """A manifest with those of all its ancestors, and figures."""

    manifest: Manifest
    ancestors: Mapping[str, bytes] = field(default_factory=dict)
    figures: bytes = b""

    @property
    def sha256(self) -> str:
        """Of the manifest."""
        return self.manifest.sha256

    def write(self, folder: Path) -> Path:
        """Make a model folder of it that holds a record and nothing else."""
        (folder / ANCESTORS).mkdir(parents=True)
        (folder / MANIFEST).write_bytes(self.manifest.payload())
        if self.figures:
            (folder / METRICS).write_bytes(self.figures)
        for name, data in self.ancestors.items():
            (folder / ANCESTORS / f"{name}.json").write_bytes(data)
        return folder

    def file(self, store: Path) -> Path:
        """Where a store keeps it."""
        return self.write(store / "models" / str(self.manifest.derivation_id))


def base(name: str = "base") -> Model:
    """A root."""
    return Model(Manifest.pin(name, Digests(digest(name), digest(f"{name} t")), source=f"./{name}"))


def child(
    name: str,
    parents: Sequence[tuple[str, Model]],
    *,
    adapter: str = "finetune",
    relation: str = "finetune",
    recipe: dict[str, Any] | None = None,
    accuracy: tuple[float, float] | None = (0.5, 0.75),
) -> Model:
    """A model made from others, given with their roles."""
    ties = [
        Parent(
            f"{role}-{at}",
            role,
            f"file:{model.manifest.name}",
            model.manifest.digests,
            model.sha256,
        )
        for at, (role, model) in enumerate(parents)
    ]
    figures, byproducts = b"", ()
    if accuracy:
        before, after = ({"accuracy": value} for value in accuracy)
        figures = canonical.dumps({"metric": "accuracy", "before": before, "after": after})
        bound = {"sha256": hashlib.sha256(figures).hexdigest()}
        others = (CHECKSUMS, TENSORS, ENVIRONMENT)
        byproducts = (
            Descriptor(name=METRICS, role="metrics", digest=bound),
            *(
                Descriptor(name=each, role="file", digest={"sha256": digest(each)})
                for each in others
            ),
        )
    rows = Descriptor(name="data", role="dataset", uri="sample:x", digest={"rowsHash1": "1" * 64})
    manifest = Manifest(
        name,
        Digests(digest(name), digest(f"{name} t")),
        Definition(
            relation=relation,
            adapter=adapter,
            recipe=recipe or {},
            task={"text_classification": {"text": "text"}},
            seed=0,
            internal=Internal(derivation_id=digest(f"{name} id")),
            dependencies=(*(entry for tie in ties for entry in tie.descriptors()), rows),
        ),
        Details(started=NOON, finished=NOON + timedelta(minutes=1), byproducts=byproducts),
    )
    ancestors = {
        key: data
        for _, model in parents
        for key, data in {**model.ancestors, model.sha256: model.manifest.payload()}.items()
    }
    return Model(manifest, ancestors, figures)


def fill_store(store: Path, num_models: int) -> None:
    """Chains of at most ten steps on a few bases, with records as long as real ones."""
    recipe = as_json(FineTune(fit=FitPlan(epochs=2, learning_rate=5e-4)))
    assert isinstance(recipe, dict)
    made: list[Model] = []
    bases = [base(f"base-{number}") for number in range(5)]
    for number in range(num_models):
        parent = made[-1] if number % 10 else bases[number % len(bases)]
        made.append(child(f"model-{number}", [("base", parent)], recipe=recipe))
        made[-1].file(store)
