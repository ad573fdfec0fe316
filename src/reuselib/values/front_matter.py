"""The YAML in front of a model card, as plain values: read as strictly as a recipe, because strangers write it."""

from __future__ import annotations

from pathlib import Path

from reuselib.values.document import MAX_BYTES, Document, parse

CARD = "README.md"
"""The model card of a folder."""
_FENCE = "---"


def read_front_matter(folder: Path) -> Document | None:
    """What stands between the two `---` lines at the top of a folder's card; None if there is nothing.

    Anchors, tags and repeated keys are among the document's problems; nothing is expanded or constructed.

    Raises:
        RecipeError: it is not YAML, or too large.
    """
    path = folder / CARD
    if not path.is_file():  # a pipe of that name would wait for ever
        return None
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    return front_matter(data.decode("utf-8-sig", "replace"))


def front_matter(card: str) -> Document | None:
    """The same, of a card's text; one whose second `---` is missing has no front matter."""
    first, *lines = card.replace("\r\n", "\n").split("\n")
    ends = (number for number, line in enumerate(lines) if line.rstrip() == _FENCE)
    end = next(ends, None) if first.rstrip() == _FENCE else None
    if end is None:
        return None
    # an empty first line, so that problems name the line of the card
    return parse("\n".join(["", *lines[:end]]), CARD)
