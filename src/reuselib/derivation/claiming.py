"""Two runs on one store: a step is made by one of them, and shared by the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reuselib.derivation.link import Link
from reuselib.derivation.plan import Plan, intact, references
from reuselib.lineage.chain import walk
from reuselib.lineage.manifest import Manifest
from reuselib.model.source import Pinned
from reuselib.progress import Progress, Report


@contextmanager
def claimed(link: Link, report: Report | None) -> Iterator[Path | None]:
    """Be the only run that makes the child of a step; waits for another one that makes it already.

    Yields:
        The folder of the child if another run has finished it by now, otherwise None: then it is to be made here.

    Raises:
        StoreError: the store cannot be written, or the child that is there is damaged.
    """

    def waiting(other: str) -> None:
        if report is not None:
            told = f"for another run ({other}), which makes the same child"
            # as a remark too: in a log there is no bar, and hours of silence look like a hang
            report(Progress("waiting", 0, 0, remark=told))
            report(Progress("waiting", 0, 0))

    store = link.plan.store
    with store.claim(link.derivation_id, needs=needs(link), waiting=waiting):
        found = store.find(link.derivation_id)
        yield intact(found) if found is not None else None


def needs(link: Link) -> list[str]:
    """What must stay in the store while a step is made: its parent, the other models it names, and their past."""
    return needed(link.plan, link.parent)


def needed(plan: Plan, model: Pinned) -> list[str]:
    """What must stay in the store for a plan that has come as far as a model."""
    past = walk(model.manifest, model.history).manifests.values()
    return [
        *_named(plan),
        *(name for each in (model.manifest, *past) for name in _names(each)),
    ]


def _named(plan: Plan) -> list[str]:
    refs = [plan.base.ref, *(ref for step in plan.steps for _, ref in references(step))]
    return [ref.digest for ref in refs if ref.digest]


def _names(manifest: Manifest) -> list[str]:
    return [name for name in (manifest.derivation_id, manifest.digests.dir_hash) if name]
