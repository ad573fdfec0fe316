"""Whether weights are what their manifests say was done to their parents' weights, step by step down to the bases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Finding
from reuselib.errors import IntegrityError, RecipeError, ReuseError, SourceError
from reuselib.evidence.edge import Claims, across, consistent, gather, replaced, with_before
from reuselib.evidence.free import selected, taken_over
from reuselib.evidence.proof import Proof, ProvenStep
from reuselib.evidence.settings import labels_in_order, unlike
from reuselib.evidence.whereabouts import Whereabouts
from reuselib.lineage.chain import Chain, history, read_ancestors, walk
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.model.opening import read_manifest, recorded_adapter

if TYPE_CHECKING:
    from reuselib.adapter import Adapter
    from reuselib.lineage.descriptors import Parent
    from reuselib.lineage.store import Store
    from reuselib.lineage.tiers import Tier

OWN = "the files are those that the manifest records"
"""The claim about a model by itself. Whatever was trained is free to differ from the parent, but not from this."""

_NEVER_CHECKED = (
    "what training did to weights that were free to move: `reproduce` does it again",
    "which layers were adapted, pruned or quantized: what is recorded of them is believed",
    "who made it: `verify` looks at signatures",
)


def prove(
    folder: Path, *, parents: Sequence[Path] = (), store: Path | Store | None = None
) -> Proof:
    """Check every step that led to a model: each child's weights against those of its parents.

    Tensors are read one at a time, so memory does not grow with the model. Of an ancestor that is not at hand, the
    steps around it are not checked, and the proof says so; nothing is fetched.

    Args:
        folder: a derived model.
        parents: folders of parents or of any ancestors, in any order; they are recognised by their bytes.
        store: where to look for the others; default: the user's store.

    Raises:
        SourceError: one of the folders is not there, or holds nothing.
        IntegrityError: the folder has no manifest or is a base, so it claims nothing; its history is not sound; or
            one of `parents` is no model of that history (`PARENT_MISMATCH`).
    """
    manifest, chain, sources = _history(folder, parents, store)
    _refuse_strangers(manifest, chain, sources)
    steps = [_step(manifest, folder, sources)]
    steps += [
        _step(each, _at_hand(parent, sources), sources)
        for parent, each in _ancestors(manifest, chain)
        if each.parents
    ]
    steps += [_gap(parent) for parent in _by_digest(chain.missing)]
    roots = {
        each.digests.dir_hash: parent.uri or each.name
        for parent, each in _ancestors(manifest, chain)
        if not each.parents
    }
    return Proof(
        manifest.name, manifest.digests.dir_hash, tuple(steps), roots, _unchecked(steps, store)
    )


def prove_step(
    folder: Path, *, parents: Sequence[Path] = (), store: Path | Store | None = None
) -> ProvenStep:
    """Check the last step of a model's history only; otherwise as `prove`."""
    manifest, chain, sources = _history(folder, parents, store)
    _refuse_strangers(manifest, chain, sources)
    return _step(manifest, folder, sources)


def claims(
    folder: Path, store: Path | Store | None = None, *, parents: Sequence[Path] = ()
) -> Claims:
    """What a model's last step claims, and the weights to check it with.

    Raises:
        SourceError: a parent is not at hand.
        IntegrityError: the folder claims nothing, or a parent is not the recorded one.
        RecipeError: its adapter is not known here.
    """
    manifest, _, sources = _history(folder, parents, store)
    return gather(manifest, folder, sources)


def _history(
    folder: Path, parents: Sequence[Path], store: Path | Store | None
) -> tuple[Manifest, Chain, Whereabouts]:
    if not folder.is_dir() or not any(folder.iterdir()):
        raise SourceError(
            f"no folder {folder}" if not folder.is_dir() else f"{folder} is empty",
            expected="the folder of a derived model",
            fix="correct the path",
        )
    manifest = read_manifest(folder)
    if manifest is None or manifest.definition.internal is None:
        raise IntegrityError(
            "MISSING_LINEAGE",
            f"{folder} claims no parent, so there is nothing to prove",
            fix="name the folder of a derived model",
        )
    chain = walk(manifest, {**_brought(parents), **read_ancestors(folder)})
    return manifest, chain, Whereabouts.of(parents, store, chain.manifests)


def _brought(parents: Sequence[Path]) -> dict[str, bytes]:
    """The manifests in the folders of parents; of each only what its name promises."""
    found = [history(each) for each in parents if (each / MANIFEST).exists()]
    return {
        sha: data
        for manifests in found
        for sha, data in manifests.items()
        if hashlib.sha256(data).hexdigest() == sha
    }


def _refuse_strangers(manifest: Manifest, chain: Chain, sources: Whereabouts) -> None:
    """Whoever names a folder believes it to be of this history, so another one is not passed over in silence.

    Where the history has a gap, it may be from beyond that.
    """
    if chain.missing:
        return
    known = [manifest, *chain.manifests.values()]
    for folder, digests in sources.named.items():
        if all(each.digests != digests for each in known):
            raise IntegrityError(
                "PARENT_MISMATCH",
                f"{folder} (dirHash {digests.dir_hash}) is no model of the history of {manifest.name}",
                fix="name the folders of its parents, as they were when it was made",
            )


def _ancestors(manifest: Manifest, chain: Chain) -> Iterator[tuple[Parent, Manifest]]:
    """Each ancestor, the nearest first, with what the first child that names it says of it."""
    named = {
        parent.manifest_sha256: parent
        for each in reversed([manifest, *chain.manifests.values()])
        for parent in reversed(each.parents)
    }
    return ((named[sha], each) for sha, each in chain.manifests.items())


def _by_digest(parents: Sequence[Parent]) -> list[Parent]:
    return list({parent.manifest_sha256: parent for parent in parents}.values())


def _at_hand(parent: Parent, sources: Whereabouts) -> Path | ReuseError:
    """The folder of an ancestor, or why there is none."""
    try:
        return sources.folder(parent)
    except ReuseError as error:
        return error


@dataclass
class _Looked:
    """What was found of a step so far."""

    findings: list[Finding] = field(default_factory=list[Finding])
    proof: list[Finding] = field(default_factory=list[Finding])
    """Those of the adapter, which alone can prove; once more in none of the others."""
    why: str = ""
    unlike: tuple[str, ...] = ()
    num_tensors: int = 0

    @property
    def tier(self) -> Tier:
        """A proof that was cut short proves nothing."""
        if any(finding.holds is False for finding in (*self.findings, *self.proof)):
            return "broken"
        shown = not self.why and any(finding.holds for finding in self.proof)
        return "proven" if shown else "recorded"


def _step(manifest: Manifest, folder: Path | ReuseError, sources: Whereabouts) -> ProvenStep:
    """Check one step: first by itself, then against its parents, as far as both are at hand."""
    looked, whole = _Looked(), True
    try:
        adapter = recorded_adapter(manifest)
        whole = adapter.whole
        looked.findings += _guarded(adapter, lambda: _recorded(manifest, adapter, sources))
        if isinstance(folder, ReuseError):
            raise folder
        looked.findings.append(_own(manifest, folder, sources))
        _look(looked, manifest, adapter, folder, sources)
    except SourceError as error:
        looked.why = error.what
    except RecipeError as error:
        looked.why = f"the adapter is not known here: {error.what}"
    except IntegrityError as error:
        looked.findings.append(_refuted(error))
    return ProvenStep(
        name=manifest.name,
        dir_hash=manifest.digests.dir_hash,
        relation=manifest.relation,
        adapter=str(manifest.definition.adapter),
        findings=(*looked.findings, *looked.proof),
        tier=looked.tier,
        why=looked.why,
        compared=sum(finding.compared for finding in looked.proof if finding.holds),
        num_tensors=looked.num_tensors,
        whole=whole,
        unlike=looked.unlike,
    )


def _look(
    looked: _Looked, manifest: Manifest, adapter: Adapter, folder: Path, sources: Whereabouts
) -> None:
    """Look at a child that is at hand, with its parents or, without them, what was before them."""
    if head := replaced(manifest, folder, sources):
        looked.findings.append(head)
    looked.findings += _guarded(adapter, lambda: labels_in_order(manifest, folder))
    try:
        case = gather(manifest, folder, sources)
        if adapter.whole:
            looked.findings.append(taken_over(manifest, sources, case.child))
        looked.proof += _guarded(adapter, lambda: case.check(case.child))
        looked.num_tensors = len(case.child)
        looked.unlike = tuple(unlike(manifest, folder, sources))
        looked.findings += _guarded(
            adapter, lambda: selected(manifest, adapter, folder, case.child)
        )
    except SourceError as error:
        looked.why = error.what
        looked.findings += _guarded(adapter, lambda: across(manifest, folder, sources))


def _recorded(manifest: Manifest, adapter: Adapter, sources: Whereabouts) -> Iterator[Finding]:
    """What a step's record says, against itself and against that of the step before."""
    yield consistent(manifest, adapter, sources)
    yield from with_before(manifest, adapter, sources)


def _own(manifest: Manifest, folder: Path, sources: Whereabouts) -> Finding:
    recorded = manifest.digests
    return Finding(OWN, sources.digests(folder) == recorded, f"dirHash {recorded.dir_hash}")


def _guarded(adapter: Adapter, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a look; whatever goes wrong in it is one of them.

    A structure comes from a stranger, and an adapter may be a stranger's too: no error of theirs ends the proof of
    the other steps, and none of them passes for a proof.
    """
    try:
        yield from look()
    except SourceError:
        raise
    except IntegrityError as error:
        yield _refuted(error)
    except Exception as error:  # noqa: BLE001 - see above
        told = f"{type(error).__name__}: {error}"
        yield Finding(f"the proof of '{adapter.kind}' comes to an end", False, told[:500])


def _refuted(error: IntegrityError) -> Finding:
    """What could not be read or is another model, as a claim that does not hold."""
    return Finding("the record can be checked", False, error.what, error.tensor)


def _gap(parent: Parent) -> ProvenStep:
    return ProvenStep(
        name=parent.name,
        dir_hash=parent.digests.dir_hash,
        relation="",
        adapter="",
        findings=(),
        tier="missing",
        why="its manifest is not at hand, so what it was made from is not known",
    )


def _unchecked(steps: Sequence[ProvenStep], store: Path | Store | None) -> tuple[str, ...]:
    """What a reader might believe was checked."""
    lines = [f"{step.name}: {step.why}" for step in steps if step.why]
    if lines and isinstance(store, Path) and not store.is_dir():
        lines.append(f"there is no store at {store}, so nothing was looked up in it")
    lines += [f"{step.name}: {line}" for step in steps for line in step.unlike]
    lines += [
        f"{step.name}: {finding.claim}" + (f" ({finding.detail})" if finding.detail else "")
        for step in steps
        for finding in step.findings
        if finding.holds is None
    ]
    return (*lines, *_NEVER_CHECKED)
