"""Two runs on one store: a step is made by one of them, and shared by the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reuselib.derivation.link import Link
from reuselib.derivation.plan import Plan, intact, references
from reuselib.lineage.chain import walk
from reuselib.lineage.manifest import Manifest
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
            phase = f"waiting for another run ({other}), which makes the same child"
            report(Progress(phase, 0, 0))

    store = link.plan.store
    with store.claim(link.derivation_id, needs=needs(link), waiting=waiting):
        found = store.find(link.derivation_id)
        yield intact(found) if found is not None else None


def needs(link: Link) -> list[str]:
    """What must stay in the store while a step is made: its parent, the other models it names, and their past."""
    parent = link.parent
    past = walk(parent.manifest, parent.history).manifests.values()
    return [
        *_named(link.plan),
        *(name for each in (parent.manifest, *past) for name in _names(each)),
    ]


def _named(plan: Plan) -> list[str]:
    refs = [plan.base.ref, *(ref for step in plan.steps for _, ref in references(step))]
    return [ref.digest for ref in refs if ref.digest]


def _names(manifest: Manifest) -> list[str]:
    return [name for name in (manifest.derivation_id, manifest.digests.dir_hash) if name]
