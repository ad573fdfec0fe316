"""What a verifier demands of a model folder: a file of the verifier's own, never one from the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reuselib.lineage.tiers import Tier


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a model must satisfy to be accepted. Without one, digests must match and nothing else is demanded."""

    trusted_keys: tuple[str, ...] = ()
    """PEM files of public keys whose signature counts; paths are relative to the policy file."""
    trusted_roots: tuple[str, ...] = ()
    """PEM files of certificate authorities; a signature by a certificate they issued counts."""
    identities: tuple[str, ...] = ()
    """Subject or alternative names that such a certificate must bear, one of them; empty: any."""
    require: tuple[Tier, ...] = ("recorded",)
    """Tiers that every edge of the model's history must reach, each by itself: `[signed, proven]` demands both."""
    unrecorded: Literal["refuse", "warn"] = "refuse"
    """What a file is that the record does not name and no library would load. A loadable one is always refused."""
    max_age_days: int | None = None
    """How long ago the model may have been made; older is `STALE`."""
    superseded: tuple[str, ...] = ()
    """SHA-256 of manifests that are no longer accepted, although everything in them holds."""
    licences: tuple[str, ...] = ()
    """SPDX identifiers that the model and all it was made from may have; empty: any. Unknown is not among them."""
    min_completeness: float | None = None
    """Share of the attributes of a good record that must be there, from 0 to 1."""
    claims: Literal["hold", "not contradicted"] = "not contradicted"
    """Whether `audit` accepts a claim that it cannot measure."""
    allow: tuple[str, ...] = ()
    """Codes of scan warnings that are accepted, such as `CHAT_TEMPLATE`."""


def demands(path: Path | None, *, keys: Sequence[Path] = ()) -> Policy | None:
    """The policy in a file, with `keys` trusted besides; None if neither is given."""
    if path is None and not keys:
        return None
    raise NotImplementedError
