"""Under which terms rows are had, as the card beside them states it in its front matter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.adapter import Json

_MAX_BYTES = 1 << 16
_FRONT = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(r"^license:[ \t]*(\S.*)?$((?:\n[ \t]*-[ \t]+\S.*$)*)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}")


def stated_terms(folder: Path) -> dict[str, Json]:
    """`license`; empty if the card of a folder does not say it plainly.

    Two forms are read: a name, and a list of names, all of which apply. Hubs write no other.
    """
    path = folder / "README.md"
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            card = file.read(_MAX_BYTES).decode("utf-8-sig", "replace").replace("\r\n", "\n")
    except OSError:
        return {}
    front = _FRONT.match(card)
    found = _LICENCE.search(front[1]) if front else None
    if found is None:
        return {}
    plain, listed = found[1] or "", re.findall(r"-[ \t]+(\S.*)", found[2])
    inline = plain[1:-1].split(",") if plain.startswith("[") and plain.endswith("]") else [plain]
    names = [each.strip().strip("\"'") for each in (listed if not plain else inline)]
    if not names or not all(map(_NAME.fullmatch, names)):
        return {}
    return {"license": " AND ".join(dict.fromkeys(names))}
