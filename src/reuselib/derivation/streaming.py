"""Steps on models that are not in memory: each tensor is read, changed and written before the next one is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapted, Adapter
from reuselib.derivation.plan import Plan, references
from reuselib.lineage.headers import headers
from reuselib.measure.memory import available
from reuselib.model.opening import Opened, read_manifest
from reuselib.network.sharing import own_names
from reuselib.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.derivation.session import Session
    from reuselib.lineage.store import Store
    from reuselib.model.source import Pinned

UNMEASURED = (
    "the model does not fit into the memory at hand, so it was made tensor by tensor and never ran"
)
"""Why there are rows, but no figures on them."""

COPIES = 3
"""How often a network is in memory while a step works on it and it is measured: itself, the one it is held against, and
what is computed of it."""
_WIDTH = 4
"""Bytes of a weight in memory: fp32."""


def sketch_for(plan: Plan, adapter: Adapter, parent: Pinned) -> Opened | None:
    """The model that a step starts from, without weights in memory, if that is how the step is to be carried out.

    That is so if the adapter can, and there are no rows to measure on or the model does not fit into the memory at
    hand. The child is the same to the last bit either way.
    """
    from reuselib.model.sketching import open_sketch

    if not (adapter.streams and adapter.whole) or plan.base.ref.trust_remote_code:
        return None
    if plan.splits is not None and fits(adapter, parent.folder, plan.store):
        return None
    opened = open_sketch(parent.folder, plan.task, plan.store)
    # drawing the tensors that a folder lacks is the business of whoever opens it for good
    return None if opened is None or opened.fresh else opened


def fits(adapter: Adapter, folder: Path, store: Store) -> bool:
    """Whether a step can work on a model in the memory at hand; yes where the system does not tell."""
    # an average adds up in fp64
    copies = COPIES + 2 * bool(references(adapter))
    room = available()
    return room is None or copies * _WIDTH * num_weights(folder, store) <= room


def num_weights(folder: Path, store: Store) -> int:
    """Numbers in a model's files and in those of the models that it needs, from headers alone."""
    infos = headers(folder).values()
    total = sum(math.prod(each.shape) for each in infos)
    manifest = read_manifest(folder)
    internal = manifest.definition.internal if manifest else None
    if manifest is None or internal is None or not internal.requires:
        return total
    below = store.locate(manifest.parents[0].digests.dir_hash)
    return total + (num_weights(below, store) if below is not None else 0)


def make_streamed(adapter: Adapter, parent: Opened, session: Session, folder: Path) -> Adapted:
    """Write the payload of the child of a model from `sketch_for` to `folder`; its network stays on the meta device.

    Raises:
        StoreError: the disk has no room for it.
        ReuseError: as `adapter.adapt`.
    """
    assert parent.weights is not None
    if session.rows is not None and session.report is not None:
        told = "the model does not fit into the memory at hand, so it is made tensor by tensor and not measured"
        session.report(Progress("preparing", 0, 0, remark=told))
    streamed = adapter.stream(parent.module, parent.weights, session)
    tensors = _reported(streamed.tensors, len(own_names(streamed.module)), session)
    session.task.write(streamed.module.eval(), parent.processor, folder, tensors)
    return streamed.adapted()


def _reported(
    tensors: Iterable[tuple[str, Tensor]], total: int, session: Session
) -> Iterator[tuple[str, Tensor]]:
    for done, each in enumerate(tensors):
        if session.report is not None:
            session.report(Progress("writing tensors", min(done, total), total))
        yield each
    if session.report is not None:
        session.report(Progress("writing tensors", total, total))
