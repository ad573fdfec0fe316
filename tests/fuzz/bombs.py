"""Large inputs that are small work to make: what a reader must refuse before it takes memory or time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_SIZE = 16 * 10**6
"""Just below what is read of a manifest, where the limits on content must hold by themselves."""


def _filled(start: str, unit: str, end: str, size: int = _SIZE) -> Callable[[], bytes]:
    def make() -> bytes:
        unit_ = unit.encode()
        return start.encode() + unit_ * (size // len(unit_)) + end.encode()

    return make


def _keys() -> bytes:
    return b"{" + b",".join(b'"%07x":0' % number for number in range(_SIZE // 12)) + b"}"


JSON: Mapping[str, Callable[[], bytes]] = {
    "empty lists": _filled("[", "[],", "[]]"),
    "empty mappings": _filled("[", "{},", "{}]"),
    "integers": _filled("[", "0,", "0]"),
    "fractions": _filled("[", "0.5,", "0]"),
    "short texts": _filled("[", '"ab",', "0]"),
    "keys": _keys,
    "wide text": _filled('["\U0001f600', "a", '"]'),
    "invisible key": _filled('{"', "\x7f", '":1,"a":1,"a":1}'),
    "escapes": _filled('["', "\\u0001", '"]'),
    "deep": _filled("", "[", ""),
    "digits": _filled("[", "9", "]"),
    "one long line": _filled("", "x", ""),
    "many lines": _filled("", "\n", ""),
    "far too large": _filled("[", "0,", "0]", 40 * 10**6),
}

YAML: Mapping[str, Callable[[], bytes]] = {
    "items": _filled("steps:\n", "- a\n", "", 10**6),
    "nested flow": _filled("steps: ", "[", "", 10**6),
    "flow items": _filled("steps: [", "a,", "a]", 10**6),
    "flow keys": _filled("steps: {", "a: b, ", "}", 10**6),
    "indents": _filled("steps:\n", "  - - - - - a\n", "", 10**6),
    "anchors": _filled("a: &a [x]\n", "b: *a\n", "", 10**6),
    "quotes": _filled("a: '", "''", "", 10**6),
    "block": _filled("a: |\n", "  x\n", "", 10**6),
    "comments": _filled("", "# x\n", "", 10**6),
    "digits": _filled("a: ", "9", "", 10**6),
    "sexagesimal": _filled("a: 1", ":59", "", 10**6),
    "far too large": _filled("a: ", "b", "", 40 * 10**6),
}
