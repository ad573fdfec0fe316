"""What to call model folders, so that people know which is meant and none is called like another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from reuselib.errors import ReuseError
from reuselib.lineage.manifest import Manifest

_ID = re.compile("[0-9a-f]{64}")
_SHORT = 8


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' last parts, as many as tell them apart; of a child in a store the name that its manifest has."""
    paths = [folder.resolve() for folder in folders]
    own = [_own(path) for path in paths]
    for length in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        found = ["/".join((*path.parts[-length:-1], name)) for path, name in zip(paths, own, strict=True)]  # fmt: skip
        if len(set(found)) == len(set(paths)):
            return found
    return [str(path) for path in paths]


def _own(path: Path) -> str:
    if not _ID.fullmatch(path.name):
        return path.name
    short = path.name[:_SHORT]
    try:
        return f"{Manifest.read(path).name} ({short})"
    except ReuseError:
        return short
