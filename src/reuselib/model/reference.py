"""Whatever a user may hand over as a base, as a `ModelRef`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from reuselib.adapter import ModelRef
from reuselib.errors import SourceError
from reuselib.lineage.disk import writing
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.scratch import scratch
from reuselib.model.model import Model

if TYPE_CHECKING:
    from torch import nn

    from reuselib.lineage.store import Store
    from reuselib.task import Task

Base: TypeAlias = "ModelRef | Model | nn.Module | str | Path"


def reference(base: Base, task: Task, store: Store) -> ModelRef:
    """What names `base`; a module from Python is first put into the store."""
    if isinstance(base, ModelRef):
        return base
    if isinstance(base, str | Path):
        # a Path is a folder, also without `./` in front
        return ModelRef(base if isinstance(base, str) else str(base.absolute()))
    if isinstance(base, Model):
        return _reference_to(base, store)
    return _keep_module(base, task, store)


def _reference_to(model: Model, store: Store) -> ModelRef:
    """Its own reference, unless that names something in a store and this is another one."""
    kind, _, name = model.ref.source.partition(":")
    if (kind == "store" and store.find(name) is None) or kind == "module":
        return replace(model.ref, source=str(model.folder.absolute()))
    return model.ref


def _keep_module(module: nn.Module, task: Task, store: Store) -> ModelRef:
    """Write a module's weights into the store, so that it is a base like any other."""
    if not hasattr(module, "state_dict"):
        raise SourceError(
            f"a base of type {type(module).__name__} is no model",
            expected="a ModelRef, a source such as `./folder`, a Model or a torch.nn.Module",
        )
    with writing(store.path), scratch(store.path / "tmp") as folder:
        task.save(module, None, folder)
        digest = take_inventory(folder).digests.dir_hash
    with store.keep_root(digest) as folder:
        task.save(module, None, folder)
    return ModelRef(f"module:{type(module).__qualname__}", digest=digest)
