"""What a policy demands beyond matching bytes, as far as manifests alone can tell: age, recall, contradictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter
from itertools import pairwise

from reuselib.errors import IntegrityError
from reuselib.lineage.chain import ANCESTORS, Chain
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.policy import Policy

_CLOCKS = timedelta(days=1)
"""How far clocks may be apart before a model comes from the future."""


def stale(manifest: Manifest, chain: Chain, policy: Policy) -> Iterator[IntegrityError]:
    """`STALE`: a model that is too old, or itself or an ancestor superseded."""
    history = {manifest.sha256: manifest, **chain.manifests}
    for digest, each in history.items():
        if digest in policy.superseded:
            path = MANIFEST if each is manifest else f"{ANCESTORS}/{digest}.json"
            what = f"the policy says that {each.name!r} (manifest {digest}) is superseded"
            yield IntegrityError("STALE", what, path=path)
    if policy.max_age_days is None:
        return
    made = manifest.details.finished
    if made is None:
        what = "the manifest does not say when the model was made, and the policy limits its age"
        yield IntegrityError("STALE", what, path=MANIFEST)
        return
    age = datetime.now(UTC) - made
    if not -_CLOCKS <= age <= timedelta(days=policy.max_age_days):
        what = f"it was made {made:%Y-%m-%d}, {age.days} days ago; at most {policy.max_age_days} are allowed"
        yield IntegrityError("STALE", what, path=MANIFEST)


def conflicts(manifest: Manifest, chain: Chain) -> Iterator[IntegrityError]:
    """`CONFLICT`: two manifests of one history that tell different derivations of the same files.

    A step may leave files as they were, so that a model and its own ancestor share a digest; that is none.
    Nor is the pinned manifest of somebody who had no other.
    """
    history = {manifest.sha256: manifest, **chain.manifests}
    told: dict[str, list[str]] = {}
    for digest, each in history.items():
        if each.derivation_id is not None:
            told.setdefault(each.digests.dir_hash, []).append(digest)
    if all(len(group) == 1 for group in told.values()):
        return
    reached = _reached(history)
    for dir_hash, group in told.items():
        # Where each reaches the next they are one line of descent; whoever reaches most comes first.
        group.sort(key=lambda digest: reached[digest].bit_count(), reverse=True)
        for one, other in pairwise(group):
            same = history[one].derivation_id == history[other].derivation_id
            if not same and reached[one] & reached[other] != reached[other]:
                yield IntegrityError(
                    "CONFLICT",
                    f"two manifests tell different derivations of one model (dirHash {dir_hash}): {one} and {other}",
                    path=f"{ANCESTORS}/{other}.json",
                )


def _reached(history: Mapping[str, Manifest]) -> dict[str, int]:
    """For each manifest a set, as bits of a number, of itself and all its ancestors."""
    above = {
        digest: [
            each.manifest_sha256 for each in manifest.parents if each.manifest_sha256 in history
        ]
        for digest, manifest in history.items()
    }
    reached: dict[str, int] = {}
    for index, digest in enumerate(TopologicalSorter(above).static_order()):
        reached[digest] = 1 << index
        for parent in above[digest]:
            reached[digest] |= reached[parent]
    return reached


def beyond_verify(policy: Policy) -> Iterator[str]:
    """What the policy demands and `verify` cannot tell."""
    for tier in policy.require:
        if tier in ("proven", "replayed"):
            yield f"{tier}: the policy demands it, and `reuselib audit` checks it"
    if policy.licences:
        yield "licences: the policy limits them, and `reuselib audit` checks them"
    if policy.min_completeness is not None:
        yield "completeness: the policy demands it, and `reuselib audit` measures it"
    if policy.claims == "hold":
        yield "claims: the policy demands that they hold, and `reuselib audit` measures them"
