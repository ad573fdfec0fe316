"""What a policy demands beyond matching bytes, as far as manifests alone can tell: age, recall, contradictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

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
    for dir_hash, group in told.items():
        first = group[0]
        for other in group[1:]:
            differ = history[first].derivation_id != history[other].derivation_id
            if differ and not (
                _descends(first, other, history) or _descends(other, first, history)
            ):
                yield IntegrityError(
                    "CONFLICT",
                    f"two manifests tell different derivations of one model (dirHash {dir_hash}): {first} and {other}",
                    path=f"{ANCESTORS}/{other}.json",
                )


def _descends(child: str, ancestor: str, history: Mapping[str, Manifest]) -> bool:
    seen: set[str] = set()
    ahead = [child]
    while ahead:
        digest = ahead.pop()
        if digest == ancestor:
            return True
        if digest not in seen and digest in history:
            seen.add(digest)
            ahead.extend(parent.manifest_sha256 for parent in history[digest].parents)
    return False


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
