"""What verification found: problems by file and tensor, what was checked, and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, ReuseError
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.tiers import Tier

if TYPE_CHECKING:
    from reuselib.adapter import Json


_NOT_ACCEPTED = {"UNSIGNED", "UNTRUSTED_SIGNER", "STALE"}


@dataclass(frozen=True)
class Problem:
    """One way in which a folder is not what its manifest says."""

    code: str
    """Stable and machine-readable, such as `DIGEST_MISMATCH`."""
    message: str
    path: str = ""
    """The file, relative to the folder."""
    tensor: str = ""
    fix: str = field(default="", compare=False)
    """What to do about it."""

    @classmethod
    def of(cls, error: ReuseError) -> Problem:
        """From the error that says the same."""
        if not isinstance(error, IntegrityError):
            return cls("UNREADABLE", error.what, fix=error.fix)
        message = error.what.removeprefix(f"{error.code}: ")
        return cls(error.code, message, error.path, error.tensor, error.fix)

    def __str__(self) -> str:
        """For people."""
        return f"{self.code}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What verification found."""

    problems: tuple[Problem, ...]
    checked: tuple[str, ...]
    """What holds, or is named among the problems."""
    unchecked: tuple[str, ...]
    """What a reader might believe was checked, and was not."""
    manifest: Manifest | None = None
    num_files: int = 0
    num_tensors: int = 0
    num_bytes: int = 0
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """SHA-256 of every file but the signature, by relative path; empty if they could not be read safely."""
    warnings: tuple[Problem, ...] = ()
    """What is not as it might be, and accepted by the policy."""
    signer: str = ""
    """Who signed it, of those whom the policy trusts; empty if nobody did, or there is no policy."""
    tier: Tier = "broken"
    """How well the history is established by what was checked here: that of its weakest edge."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with what was checked."""
        return not self.problems

    @property
    def is_bytes_as_recorded(self) -> bool:
        """Whether nothing is wrong but that the policy does not accept the model: unsigned, too old."""
        return {problem.code for problem in self.problems} <= _NOT_ACCEPTED

    @property
    def is_unreadable(self) -> bool:
        """Whether all that is wrong is that the system refused to read something: no sign of a change."""
        return {problem.code for problem in self.problems} == {"UNREADABLE"}

    def refusal(self, what: str, *, fix: str) -> IntegrityError:
        """The error that something is not done because of the first problem; `what` is the rest of the sentence."""
        first = self.problems[0]
        more = len(self.problems) - 1
        return IntegrityError(
            first.code,
            f"{what}: {first.message}" + (f" (and {more} more)" if more else ""),
            path=first.path,
            tensor=first.tensor,
            fix=fix,
        )

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "ok": self.ok,
            "problems": [vars(problem) for problem in self.problems],
            "warnings": [vars(problem) for problem in self.warnings],
            "signer": self.signer or None,
            "tier": self.tier,
            "checked": list(self.checked),
            "unchecked": list(self.unchecked),
            "name": self.manifest.name if self.manifest else None,
            "digest": dict(self.manifest.digests.to_json()) if self.manifest else None,
            "numFiles": self.num_files,
            "numTensors": self.num_tensors,
            "numBytes": self.num_bytes,
        }
