"""A model's tensors as the proofs of adapters see them: read one at a time, under the names of the child's network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from reuselib.adapter import Weights
from reuselib.errors import IntegrityError
from reuselib.lineage.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.lineage.descriptors import Parent
    from reuselib.lineage.manifest import Manifest


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


class Sources(Protocol):
    """Finds models by what a manifest says of them."""

    def folder(self, parent: Parent) -> Path:
        """Where a model is; raises if it is not at hand, or not what is recorded."""
        ...

    def manifest(self, parent: Parent) -> Manifest | None:
        """What is known about a model; None if nothing is, and then it is taken to be whole."""
        ...


def own_weights(folder: Path, manifest: Manifest | None, sources: Sources) -> Weights:
    """All tensors of a model: those in its folder and, for an adapter, those of the model it needs.

    Args:
        folder: of the model.
        manifest: what is known about it, from whoever can be believed: the folder's own record is not read.
        sources: where the models are that it needs.
    """
    own = Tensors(folder)
    internal = manifest.definition.internal if manifest else None
    if manifest is None or internal is None or not internal.requires:
        return own
    return Layers(own, parent_weights(manifest, sources))


def parent_weights(manifest: Manifest, sources: Sources) -> Weights:
    """The tensors of a step's first parent, as that step saw them when it began.

    Raises:
        IntegrityError: two of them would have one name.
    """
    internal = manifest.definition.internal
    if internal is None:
        raise ValueError("a root has no parent")
    parent = manifest.parents[0]
    weights = own_weights(sources.folder(parent), sources.manifest(parent), sources)
    renamed = internal.renamed
    names = {renamed.get(name, f"{internal.prefix}{name}"): name for name in weights}
    if len(names) != len(weights):
        twice = sorted(set(weights) - set(names.values()))[0]
        raise IntegrityError(
            "BAD_STRUCTURE",
            f"{manifest.name} is recorded to take over {twice} under a name that another tensor gets",
            tensor=twice,
        )
    dropped = set(internal.dropped)
    return View(weights, {name: source for name, source in names.items() if name not in dropped})
