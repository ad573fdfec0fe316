"""What somebody calls a model folder, and where it is: a child keeps its address when its store packs it."""

from __future__ import annotations

import re
from pathlib import Path

from reuselib.errors import SourceError
from reuselib.lineage.store import Store

_STORE = "store:"


def at_hand(place: Path | str, store: Path | None = None) -> Path:
    """The folder that is meant.

    Args:
        place: a folder; `store:` and at least 8 digits of the id of a child; or a path that a run printed,
            `<store>/models/<id>`, whose child may be packed by now: then it is unpacked.
        store: that `store:` is about; default: as `Store.default`.

    Returns:
        Anything else as it is, there or not.

    Raises:
        SourceError: the store has no such child.
        StoreError: the digits fit several children, or are no such digits; or the child cannot be unpacked.
    """
    text = str(place)
    if text.startswith(_STORE) and not Path(text).exists():
        found = Store.default(store).find(text.removeprefix(_STORE))
        if found is None:
            raise SourceError(
                f"{text} is not in the store at {Store.default(store).path}",
                expected="the derivation id of a finished child, or at least its first 8 digits",
                fix="derive it first, or name the right store with --store or REUSELIB_STORE",
            )
        return found
    folder = Path(place)
    if folder.exists() or not re.fullmatch("[0-9a-f]{64}", folder.name):
        return folder
    around = Store(folder.absolute().parent.parent)
    return (
        around.find(folder.name) if folder.absolute().parent == around.models else None
    ) or folder
