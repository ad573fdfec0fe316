"""Opening a model folder without its weights: the network on the meta device, and where each tensor lies on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.lineage.tensors import Tensors
from reuselib.model.opening import Opened, needed_folder, read_manifest, recorded_adapter
from reuselib.model.weights import Layers
from reuselib.network.sharing import shared_names
from reuselib.task import Task
from reuselib.values.named import parse_adapter

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

    from reuselib.adapter import Adapter, Json
    from reuselib.lineage.manifest import Manifest
    from reuselib.lineage.store import Store
    from reuselib.task import Loaded


@dataclass(frozen=True)
class Placed(Mapping[str, "Tensor"]):
    """A folder's tensors under the names and in the types of a network's state, each read when it is asked for."""

    tensors: Tensors
    sources: Mapping[str, str]
    """The folder's name by the network's; a tensor that is shared has all its names here."""
    types: Mapping[str, dtype]
    """Of the network's tensors."""

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[self.sources[name]]
        # numbers that are no floats mean what they are
        return tensor.to(self.types[name]) if tensor.is_floating_point() else tensor

    def __contains__(self, name: object) -> bool:
        # Mapping would read the tensor to find out
        return name in self.sources

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


def open_sketch(folder: Path, task: Task, store: Store) -> Opened | None:
    """As `open_network`, but with the network on the meta device and its tensors in `Opened.weights`.

    Returns:
        None if only `open_network` can open it, for instance as it computes tensors from several in the folder; so the
        same if something is wrong with it, which `open_network` then says.

    Raises:
        ReuseError: as `open_network`, where the configuration and the manifests alone show it.
    """
    if type(task).place is Task.place:
        return None
    manifest = read_manifest(folder)
    internal = manifest.definition.internal if manifest else None
    if manifest is None or internal is None:
        return _placed(task, sketched(task, folder), folder, "dense")
    if internal.requires:
        below = open_sketch(needed_folder(manifest, store), task, store)
        if below is None or below.weights is None:
            return None
        module = _rebuilt(below.module, _changes(manifest))
        if module is None:
            return None
        weights = Layers(Tensors(folder), below.weights)
        opened = replace(below, module=module, weights=weights, fresh=frozenset())
    elif internal.rebuild:
        sketch = sketched(task, folder)
        module = _rebuilt(sketch.module, _changes(manifest))
        found = None if module is None else _whole(module, Tensors(folder), {})
        if module is None or found is None:
            return None
        opened = Opened(module, sketch.processor, weights=found)
    else:
        return _placed(task, sketched(task, folder), folder, internal.form)
    return replace(
        opened,
        module=opened.module.eval(),
        form=internal.form,
        rebuild=internal.rebuild,
        requires=internal.requires,
        prefix="",
        renamed={},
    )


def sketch_network(folder: Path, task: Task, store: Store) -> Loaded:
    """The network of a base or a child on the meta device, and its processor; its files may be missing.

    Raises:
        ReuseError: as `open_network`, where the configuration and the manifests alone show it.
        NotImplementedError: a recorded change looks at weights.
    """
    manifest = read_manifest(folder)
    internal = manifest.definition.internal if manifest else None
    if manifest is not None and internal is not None and internal.requires:
        found = sketch_network(needed_folder(manifest, store), task, store)
    else:
        found = sketched(task, folder)
    return replace(found, module=_changed(found.module, _changes(manifest)))


def sketched(task: Task, folder: Path) -> Loaded:
    """The network that a folder's configuration describes, on the meta device, and its processor."""
    import torch

    with torch.device("meta"):
        return task.sketch(folder)


def _changes(manifest: Manifest | None) -> list[tuple[Adapter, Json]]:
    """What made the network of a folder of what lies below it, or of what its configuration describes."""
    internal = manifest.definition.internal if manifest else None
    if manifest is None or internal is None:
        return []
    if internal.requires:
        return [(recorded_adapter(manifest), internal.structure)]
    return [(parse_adapter(each["adapter"]), each["structure"]) for each in internal.rebuild]


def _changed(module: nn.Module, changes: Sequence[tuple[Adapter, Json]]) -> nn.Module:
    import torch

    with torch.device("meta"):
        for adapter, structure in changes:
            module = adapter.rebuild(module, structure)
    return module


def _rebuilt(module: nn.Module, changes: Sequence[tuple[Adapter, Json]]) -> nn.Module | None:
    """The network after recorded changes; None if one of them looks at weights."""
    try:
        return _changed(module, changes)
    except (NotImplementedError, RuntimeError):
        return None  # what torch raises where there are no numbers


def _placed(task: Task, sketch: Loaded, folder: Path, form: str) -> Opened | None:
    loaded = task.place(sketch, folder)
    if loaded is None:
        return None
    tensors = Tensors(folder)
    homes = {name: loaded.renamed.get(name, f"{loaded.prefix}{name}") for name in tensors}
    weights = _whole(loaded.module, tensors, homes, lacking=loaded.fresh)
    if weights is None:
        return None
    return Opened(
        loaded.module.eval(),
        loaded.processor,
        form,
        fresh=loaded.fresh,
        prefix=loaded.prefix,
        renamed=loaded.renamed,
        weights=weights,
    )


def _whole(
    module: nn.Module,
    tensors: Tensors,
    homes: Mapping[str, str],
    lacking: frozenset[str] = frozenset(),
) -> Placed | None:
    """Every tensor of a network's state but those that may be `lacking`; None if others are, or shapes differ."""
    state, shared = module.state_dict(), shared_names(module)
    filled: dict[str, str] = {}
    for name in tensors:
        home = homes.get(name, name)
        if home not in state:
            continue
        if tuple(state[home].shape) != tensors.info(name).shape:
            return None
        filled[shared[home]] = name
    sources = {name: filled[first] for name, first in shared.items() if first in filled}
    if set(shared) - set(sources) - lacking:
        return None
    return Placed(tensors, sources, {name: each.dtype for name, each in state.items()})
