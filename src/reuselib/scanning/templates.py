"""Chat templates: programs in Jinja that libraries run on every conversation.

Libraries run them in a sandbox, which has been broken before; and one that keeps to the sandbox can still change what
is said. So each is told, and what only an escape would need is told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.adapter import Json

_ESCAPES: tuple[tuple[str, str], ...] = (
    (r"__\w+__", "a name with two underscores"),
    (r"\{%-?\s*(import|include|extends|from)\b", "another template"),
    (r"\|\s*attr\b|\battr\s*\(", "`attr`, which reaches any attribute"),
    (r"\b(lipsum|cycler|joiner|self|request|config|g)\s*(\.|\[|\|)", "an object that leads to the globals of Python"),
    (r"\b(import|eval|exec|open|popen|system|getattr|subprocess|globals|mro|subclasses)\s*\(",
     "a call that no template needs"),
    (r"\.(mro|subclasses|func_globals|gi_frame|f_globals|cr_frame|co_code)\b", "an inner attribute of Python"),
    (r"\\x5f|\\u005f|\\137|['\"]_+['\"]\s*[~+*]|[~+*]\s*['\"]_+['\"]|['\"]__|__['\"]",
     "underscores that are put together"),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), what) for pattern, what in _ESCAPES)
_KEY = "tokenizer.chat_template"


def escapes(template: str) -> str:
    """What a template holds that is of no use but to leave the sandbox; empty if nothing."""
    for pattern, what in _COMPILED:
        if found := pattern.search(template):
            return f"{what} (`{found[0][:40]}`)"
    return ""


def templates_of(value: Json) -> Iterator[str]:
    """The templates that a configuration's `chat_template` holds: one, a list with names, or by name."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from templates_of(item.get("template") if isinstance(item, dict) else item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from templates_of(item)


def templates_of_gguf(start: bytes) -> Iterator[str]:
    """The templates among the first fields of a GGUF file, where it keeps them as text by key."""
    for found in re.finditer(re.escape(_KEY.encode()) + rb"[\w.]*\x08\x00\x00\x00", start):
        length = int.from_bytes(start[found.end() : found.end() + 8], "little")
        text = start[found.end() + 8 : found.end() + 8 + min(length, len(start))]
        yield text.decode("utf-8", "replace")
