"""Loading a model only if it holds what is demanded of it, from the very bytes that were checked."""

from __future__ import annotations

import os
import shutil
import stat
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, Problem, RecipeError, SourceError
from reuselib.evidence.completeness import complete
from reuselib.evidence.licences import read_licences
from reuselib.evidence.objections import against_policy
from reuselib.evidence.prove import prove
from reuselib.evidence.whereabouts import Whereabouts
from reuselib.lineage.chain import Chain, read_ancestors, walk
from reuselib.lineage.digest import all_files
from reuselib.lineage.disk import writing
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.policy import Demand, Policy, demanding, policy_for
from reuselib.lineage.scratch import scratch, sweep
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify
from reuselib.model.model import Model
from reuselib.signing.check import refuse_keys_inside

if TYPE_CHECKING:
    from reuselib.task import Task


def load(
    folder: str | Path,
    *,
    require: Sequence[Demand] = ("recorded",),
    policy: Policy | str | Path | None = None,
    task: Task | None = None,
    store: Path | None = None,
    parents: Sequence[Path] = (),
) -> Model:
    """Open a model folder if it matches its record and its history reaches every tier that is demanded.

    The folder is copied first, to where only this user can write, and the copy is what is verified and opened. So
    nothing that happens to the folder between the check and the opening, or afterwards, can change the model. The
    price is the disk space of the model (in the store, until the model is no longer used), one copy, and reading it
    three times; memory is that of opening it. A base that an adapter-only child needs is copied likewise.

    Args:
        folder: a model with its record.
        require: tiers that every edge of the history must reach, besides those of the policy: `recorded`, `signed`
            (the policy says whom to trust), `proven` (takes the parents' weights and some time).
        policy: what else is demanded, or the file that says so. Whatever in it takes a measurement is refused, for
            only `audit` can tell.
        task: what it is for; default: what its manifest says.
        store: where to look for parents, and to keep the copy; default: the user's store.
        parents: folders of parents or of any ancestors, looked at before the store.

    Raises:
        IntegrityError: what `verify` found first, with its code; `INCONSISTENT_DERIVATION`, a claim about the parents
            does not hold; `TIER_NOT_REACHED`, it cannot be shown to reach a tier; `POLICY_NOT_MET`, its licences or
            the completeness of its record are not what the policy demands.
        SourceError: there is no such folder, or a model that it needs is not at hand.
        RecipeError: the policy is malformed, lies in the folder, or demands what loading cannot check; or `signed` is
            demanded and nobody is trusted.
        StoreError: there is no room for the copy.
        MissingExtra: a signature is to be checked and `reuselib[sign]` is not installed.
    """
    demanded = _demanded(Path(folder), policy, require)
    place = Store.default(store)
    with ExitStack() as stack:
        with writing(place.path):
            sweep(place.path / "tmp")
            private = stack.enter_context(scratch(place.path / "tmp"))
            private.chmod(0o700)
        # Under the same name, which is what a derivation from it records.
        copy = _copied(Path(folder), private / "model" / Path(folder).resolve().name)
        manifest = _verified(copy, demanded)
        _reach(copy, demanded, store=place, parents=parents)
        needs = Store(private / "store")
        chain = walk(manifest, read_ancestors(copy))
        _keep_to(demanded, copy, manifest, chain)
        _bring(manifest, Whereabouts.of(parents, place, chain.manifests), needs)
        model = Model.load(copy, task=task, store=needs.path)
        # The copy lives as long as the model, whose files it is.
        weakref.finalize(model, stack.pop_all().close)
        return model


def _demanded(
    folder: Path, policy: Policy | str | Path | None, require: Sequence[Demand]
) -> Policy:
    """All that is demanded, if it can be enforced here: what is silently left out would be taken for granted."""
    if isinstance(require, str):
        what = f"expected a list of tiers, such as `['{require[:40]}']`"
        raise RecipeError([Problem("", "require", what)])
    demanded = demanding(policy_for(folder, policy) or Policy(require=()), require)
    # The copy is elsewhere, so that verifying it would not notice.
    refuse_keys_inside(folder, demanded)
    if demanded.claims == "hold":
        what = (
            "that claims hold takes measuring them, which `reuselib audit` does and `load` does not"
        )
        raise RecipeError([Problem(str(demanded.source or ""), "claims", what)])
    return demanded


def _keep_to(policy: Policy, copy: Path, manifest: Manifest, chain: Chain) -> None:
    """What records tell and `verify` does not look at."""
    licences = read_licences(copy, manifest, chain, policy)
    objections = list(against_policy(licences, complete(copy, manifest, chain), policy))
    if objections:
        raise IntegrityError(
            "POLICY_NOT_MET",
            f"{copy.name} is not loaded: {objections[0]}",
            fix="`reuselib audit` lists licences and gaps",
        )


def _copied(folder: Path, target: Path, *, follow_links: bool = False) -> Path:
    """A copy of plain files only; whatever is swapped meanwhile is copied too, and does not match its digest."""
    names = all_files(folder, follow_links=follow_links)
    with writing(target):
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _copy_file(folder / name, target / name)
    return target


def _copy_file(source: Path, target: Path) -> None:
    # A pipe in place of the file would wait for its writer for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(source, flags)
    except OSError as error:
        raise SourceError(f"cannot read {source}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IntegrityError("UNSAFE_PATH", f"{source.name} is no longer a plain file")
        with target.open("xb") as written:
            shutil.copyfileobj(opened, written, 1 << 20)


def _verified(copy: Path, policy: Policy) -> Manifest:
    report = verify(copy, policy=policy)
    if report.problems or report.manifest is None:
        raise report.refusal(
            f"{copy.name} is not loaded",
            fix="`reuselib verify` lists everything that is wrong with it",
        )
    return report.manifest


def _reach(copy: Path, policy: Policy, *, store: Store, parents: Sequence[Path]) -> None:
    """What `verify` cannot establish."""
    if "replayed" in policy.require:
        raise IntegrityError(
            "TIER_NOT_REACHED",
            f"{copy.name} is not loaded: `replayed` is demanded, which takes making it again",
            fix="run `reuselib reproduce` by itself, and load with what is left to demand",
        )
    if "proven" not in policy.require:
        return
    proof = prove(copy, parents=parents, store=store)
    lacking = [step for step in proof.steps if step.tier != "proven"]
    for step in sorted(lacking, key=lambda step: step.tier != "broken"):
        false = [finding.claim for finding in step.findings if finding.holds is False]
        is_broken = step.tier == "broken"
        raise IntegrityError(
            "INCONSISTENT_DERIVATION" if is_broken else "TIER_NOT_REACHED",
            f"{copy.name} is not loaded: the step that made {step.name!r} is {step.tier}, not proven: "
            f"{', '.join(false) or step.why or 'nothing about it could be compared'}",
            fix="`reuselib prove` tells of each claim; name the folders of parents that are not in the store",
        )


def _bring(manifest: Manifest, sources: Whereabouts, target: Store) -> None:
    """Copy the models whose weights an adapter-only child needs, down to the one that needs none."""
    below: Manifest | None = manifest
    while below is not None and below.definition.internal and below.definition.internal.requires:
        parent = below.parents[0]
        found, known = sources.folder(parent), sources.known(parent)
        with target.keep_root(parent.digests.dir_hash) as folder:
            _copied(found, folder, follow_links=True)
            if take_inventory(folder).digests != parent.digests:
                raise IntegrityError(
                    "PARENT_MISMATCH",
                    f"{found} was changed while it was read: it is no longer {parent.name!r}",
                    fix="get the parent again",
                )
            # Its digest says nothing of its record, by which it is opened: that is what the history says of it.
            shutil.rmtree(folder / "lineage", ignore_errors=True)
            if known is not None and known.parents:
                (folder / MANIFEST).parent.mkdir()
                (folder / MANIFEST).write_bytes(known.payload())
            below = known
