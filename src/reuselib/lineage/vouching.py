"""Who vouches for a model folder: what its signature is worth to a verifier, and what none is worth."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from reuselib.errors import IntegrityError
from reuselib.lineage.digest import SIGNATURE
from reuselib.lineage.policy import Policy


@dataclass(frozen=True)
class Vouched:
    """What came of looking at the signature."""

    signer: str = ""
    """Of the signature that counts; empty if none does."""
    num_files: int = 0
    """That were signed."""
    problems: tuple[IntegrityError, ...] = ()
    unchecked: tuple[str, ...] = ()


def vouch(
    folder: Path, policy: Policy | None, names: Collection[str], files: Mapping[str, str]
) -> Vouched:
    """Look at the signature of a folder, if there is one and somebody whose signature would count.

    Args:
        folder: the model.
        policy: whom to trust, if anybody.
        names: all files, by relative path.
        files: SHA-256 of all but the signature; empty if they cannot be read safely, which is a problem by itself.

    Raises:
        SourceError: a key of the policy cannot be read.
        MissingExtra: there is something to check, and `reuselib[sign]` is not installed.
    """
    present = SIGNATURE in names
    if policy is None or not (policy.trusted_keys or policy.trusted_roots):
        if present:
            return _nobody("it is signed, but no policy names a key to trust")
        return _nobody("there is no signature")
    if not files:
        return _nobody("the signature was not looked at, for the files cannot be read safely")
    from reuselib.signing.check import check_signature

    try:
        found = check_signature(folder, policy, files)
    except IntegrityError as error:
        return Vouched(
            problems=(error,),
            unchecked=("who made it: no signature holds that the policy trusts",),
        )
    left_out = tuple(f"{name}: the signer left it out" for name in found.ignored)
    return Vouched(found.signer, found.num_files, found.problems, unchecked=left_out)


def _nobody(why: str) -> Vouched:
    return Vouched(unchecked=(f"who made it: {why}",))
