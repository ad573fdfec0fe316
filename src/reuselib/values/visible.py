"""Text from strangers, made to show what it holds: no character may move a cursor, hide, or turn the direction."""

from __future__ import annotations

import json
import re

_UNSEEN = re.compile(r"[^ -~]")


def visible(text: str) -> str:
    r"""One line: control, direction and other invisible characters are written as `\u202e`."""
    return _UNSEEN.sub(lambda found: _escaped(found[0], f"\\u{ord(found[0]):04x}"), text)


def visible_lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(written: str) -> str:
    """JSON of the same value, in which only line feeds between values are left of what cannot be seen."""

    def escaped(found: re.Match[str]) -> str:
        char = found[0]
        return char if char == "\n" else _escaped(char, json.dumps(char)[1:-1])

    return _UNSEEN.sub(escaped, written)


def _escaped(char: str, escape: str) -> str:
    return char if char.isprintable() else escape
