"""Opening a model folder: the network with its weights, rebuilt as its manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, Json, Weights
from reuselib.errors import IncompatibleStep, IntegrityError, SourceError
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.tensors import Tensors
from reuselib.values.named import parse_adapter

if TYPE_CHECKING:
    from torch import nn

    from reuselib.lineage.definition import Internal
    from reuselib.lineage.store import Store
    from reuselib.task import Loaded, Processor, Task


@dataclass(frozen=True)
class Opened:
    """A network in memory, and what is known about how it must be rebuilt."""

    module: nn.Module
    processor: Processor
    form: str = "dense"
    """What kind of weights it has, see `Adapter.follow`."""
    rebuild: tuple[Json, ...] = ()
    """Changes that the configuration cannot say, in order: `{"adapter": ..., "structure": ...}`."""
    requires: tuple[str, ...] = ()
    """`dirHash` of each model whose weights this one needs besides its own, the nearest first."""
    fresh: frozenset[str] = frozenset()
    """Tensors that the folder does not hold, initialised on opening."""
    prefix: str = ""
    """What the network's names have in front of the folder's."""
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    """The network's name by the folder's, where they differ in more than the prefix."""
    weights: Weights | None = None
    """The tensors, if the network is on the meta device and holds none: see `model.sketching` and `Adapter.stream`."""


def open_network(
    folder: Path, task: Task, store: Store, *, trust_remote_code: bool = False
) -> Opened:
    """Load the network of a base or of a child, with whatever that needs.

    New parameters, such as those of a head that the base lacks, use torch's global generator.

    Raises:
        SourceError: a model that an adapter needs is not at hand.
        IncompatibleStep: it holds an adapter only, trained for another task.
        IntegrityError: weights and structure do not fit.
    """
    manifest = read_manifest(folder)
    internal = manifest.definition.internal if manifest else None
    if manifest is None or internal is None:
        loaded = task.load(folder, trust_remote_code=trust_remote_code)
        return _as_loaded(loaded)
    if internal.requires:
        _refuse_other_task(
            manifest, task, "holds an adapter only", "merge it for its own task first"
        )
        adapter = recorded_adapter(manifest)
        below = needed_folder(manifest, store)
        base = open_network(below, task, store, trust_remote_code=trust_remote_code)
        module = adapter.rebuild(base.module, internal.structure)
        adapter.load(module, folder)
        processor = base.processor
    elif internal.rebuild:
        why = "is built by the record of its own steps"
        _refuse_other_task(
            manifest, task, why, "fine-tune for the new task before the step that made it"
        )
        module, processor = _rebuilt(folder, task, internal), task.processor(folder)
    else:
        loaded = task.load(folder, trust_remote_code=trust_remote_code)
        # a child made for other labels gets a new head, just as any base
        return _as_loaded(loaded, internal.form)
    return Opened(module.eval(), processor, internal.form, internal.rebuild, internal.requires)


def _as_loaded(loaded: Loaded, form: str = "dense") -> Opened:
    """A network whose configuration says all."""
    return Opened(
        loaded.module,
        loaded.processor,
        form,
        fresh=loaded.fresh,
        prefix=loaded.prefix,
        renamed=loaded.renamed,
    )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None for a base that has none."""
    return Manifest.read(folder) if (folder / MANIFEST).exists() else None


def recorded_adapter(manifest: Manifest) -> Adapter:
    """The adapter that made a child, with its recorded configuration."""
    return parse_adapter({str(manifest.definition.adapter): dict(manifest.definition.recipe)})


def needed_folder(manifest: Manifest, store: Store) -> Path:
    """Where the model is whose weights an adapter-only child needs.

    peft takes any base of the right shapes without a word, so the bytes are compared with the record.

    Raises:
        SourceError: it is not at hand.
        IntegrityError: what is there is another model by now.
    """
    parent = manifest.parents[0]
    found = store.locate(parent.digests.dir_hash)
    if found is None:
        raise SourceError(
            f"{manifest.name} holds an adapter only, and its base is not at hand: "
            f"{parent.uri} (dirHash {parent.digests.dir_hash})",
            expected="the base in the store, or opened before with this store",
            fix="open the base once with this store, or derive the model again",
        )
    digests = take_inventory(found, follow_links=True).digests
    if digests != parent.digests:
        raise IntegrityError(
            "PARENT_MISMATCH",
            f"{manifest.name} was trained over {parent.uri} (dirHash {parent.digests.dir_hash}), but what is there "
            f"now is another model (dirHash {digests.dir_hash})",
            fix="get the base with the recorded digest, and open it once with this store",
        )
    return found


def _refuse_other_task(manifest: Manifest, task: Task, why: str, fix: str) -> None:
    """What a configuration does not describe cannot be given another head; its files name no labels."""
    kind, made_for = _labels(manifest.definition.task or {})
    wanted_kind, asked = _labels(task.describe())
    if kind != wanted_kind or (asked is not None and asked != made_for):
        raise IncompatibleStep(
            f"{manifest.name} {why}, trained for {kind} with labels {made_for}, and "
            f"cannot serve {wanted_kind} with labels {asked}",
            expected="the task it was trained for",
            fix=f"{fix}; the model that comes of it can be the base for another task",
        )


def _labels(described: Mapping[str, Json]) -> tuple[str, Json]:
    """Kind and labels of a task, as recipes write it; a stranger's manifest may hold anything."""
    kind, values = next(iter(described.items()), ("no task", None))
    return kind, values.get("labels") if isinstance(values, dict) else None


def _rebuilt(folder: Path, task: Task, internal: Internal) -> nn.Module:
    """The network from its configuration and the recorded changes, then the folder's weights."""
    module = task.skeleton(folder)
    for entry in internal.rebuild:
        module = parse_adapter(entry["adapter"]).rebuild(module, entry["structure"])
    load_weights(module, Tensors(folder))
    return module


def load_weights(module: nn.Module, weights: Tensors) -> None:
    """Copy every tensor into the network; one too many, too few or of another shape is an error."""
    import torch

    state: Mapping[str, torch.Tensor] = module.state_dict()
    filled: set[int] = set()
    with torch.no_grad():
        for name in weights:
            info = weights.info(name)
            if name not in state or tuple(state[name].shape) != tuple(info.shape):
                raise IntegrityError(
                    "UNKNOWN_TENSOR",
                    f"{name} has no place in the network",
                    path=info.file,
                    tensor=name,
                )
            state[name].copy_(weights[name])
            filled.add(state[name].data_ptr())
    # a tied tensor is stored once, under the name of one of its places
    empty = sorted(name for name, value in state.items() if value.data_ptr() not in filled)
    if empty:
        raise IntegrityError("MISSING_TENSOR", f"{empty[0]} is not in the folder", tensor=empty[0])
