"""A model's tensors as the proofs of adapters see them: read one at a time, under the names of the child's network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Weights
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.tensors import Tensors
from reuselib.model.opening import needed_folder, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.lineage.store import Store


@dataclass(frozen=True)
class View(Mapping[str, "Tensor"]):
    """Tensors under other names, floating-point values in fp32, each read when it is asked for."""

    tensors: Weights
    names: Mapping[str, str]
    """The name here to the name there."""

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[self.names[name]]
        return tensor.float() if tensor.is_floating_point() else tensor

    def __contains__(self, name: object) -> bool:
        # Mapping would read the tensor to find out
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Layers(Mapping[str, "Tensor"]):
    """An adapter's tensors on top of those of its base."""

    upper: Weights
    lower: Weights

    def __getitem__(self, name: str) -> Tensor:
        return self.upper[name] if name in self.upper else self.lower[name]

    def __contains__(self, name: object) -> bool:
        return name in self.upper or name in self.lower

    def __iter__(self) -> Iterator[str]:
        yield from self.upper
        yield from (name for name in self.lower if name not in self.upper)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def own_weights(folder: Path, store: Store) -> Weights:
    """All tensors of a model: those in its folder and, for an adapter, those of the model it needs."""
    manifest = read_manifest(folder)
    own = Tensors(folder)
    internal = manifest.definition.internal if manifest else None
    if manifest is None or internal is None or not internal.requires:
        return own
    return Layers(own, parent_weights(manifest, needed_folder(manifest, store), store))


def parent_weights(manifest: Manifest, parent: Path, store: Store) -> Weights:
    """The tensors of a step's first parent, as that step saw them when it began."""
    internal = manifest.definition.internal
    if internal is None:
        raise ValueError("a root has no parent")
    weights = own_weights(parent, store)
    dropped = set(internal.dropped)
    renamed = internal.renamed
    names = {renamed.get(name, f"{internal.prefix}{name}"): name for name in weights}
    return View(weights, {name: source for name, source in names.items() if name not in dropped})
