"""What a scan may come upon in a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["danger", "caution", "note"]
"""`danger`: opening it with usual libraries may run code or read elsewhere. `caution`: somebody should look at it.
`note`: worth knowing."""

SEVERITIES: tuple[Severity, ...] = ("danger", "caution", "note")
"""The worst first."""

CODES: dict[str, Severity] = {
    "PICKLE": "danger",
    "PICKLE_CODE": "danger",
    "CODE": "danger",
    "CODE_LIKE": "caution",
    "EXECUTABLE": "danger",
    "REMOTE_CODE": "danger",
    "CLASS_PATH": "caution",
    "FOREIGN_REPO": "caution",
    "LOCAL_PATH": "note",
    "TEMPLATE_CODE": "danger",
    "CHAT_TEMPLATE": "caution",
    "UNSAFE_TARGET": "danger",
    "LINK": "danger",
    "SPECIAL_FILE": "danger",
    "ARCHIVE": "caution",
    "ARCHIVE_UNREAD": "danger",
    "ARCHIVE_TRICK": "danger",
    "ARCHIVE_BOMB": "danger",
    "MISNAMED": "caution",
    "AMBIGUOUS_JSON": "caution",
    "UNREAD_FORMAT": "caution",
    "UNKNOWN_FORMAT": "note",
    "SCAN_LIMIT": "danger",
}
"""Every code, with how bad it is."""


@dataclass(frozen=True)
class Hazard:
    """One thing that was come upon."""

    code: str
    """One of `CODES`; what a policy may accept by `allow`."""
    path: str
    """The file, relative to the folder; what is inside an archive follows a `!`."""
    message: str

    @property
    def severity(self) -> Severity:
        """That of the code."""
        return CODES[self.code]

    def to_json(self) -> dict[str, str]:
        """As plain JSON."""
        return {**vars(self), "severity": self.severity}

    def __str__(self) -> str:
        """For people."""
        return f"{self.code}: {self.path}: {self.message}"
