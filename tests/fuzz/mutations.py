"""Damaged inputs: what a careless or hostile writer of a sound file may hand over. Everything from one generator."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from reuselib.errors import ReuseError

TOKENS = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\n", b"\r\n", b"\t", b"\x00", b"\xff"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0x1F", b"1_0", b"9" * 30),
    *(b"\\ud800", b"\\u0000", b"\xef\xbb\xbf", b"\xed\xa0\x80", "\u202e".encode(), "é".encode()),
    *(
        b"[" * 200,
        b'{"a":' * 100,
        b"&a *a",
        b"!!python/object:os.system",
        b"--- ",
        b"<<: *a",
        b"# x",
    ),
    *(b"../", b"/etc/passwd", b"C:\\x", b"lineage/", b"__metadata__", b"9" * 5000, b"- " * 300),
)
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e-320, 1e308, 2**31, 2**53, 2**53 - 1, 2**63, 2**64),
    *(-(2**53), 10**30, "", "a", "\x00", "\u202eabc", "e\u0301", "\u00e9", "\ufeff", "x" * 3000),
    *("../../x", "/abs", "a\nb", "1", "true", "0" * 64, "g" * 64, "F" * 64, "__proto__"),
)


def damaged_bytes(draw: Random, data: bytes) -> bytes:
    """One to four accidents, or attacks, that know nothing of the format."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randint(0, len(data))
        end = min(len(data), at + draw.choice((1, 1, 2, 8, 64, 1000)))
        kind = draw.randrange(7)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[end:]
        elif kind == 2:
            data = data[:end] + data[at:end] * draw.choice((1, 2, 30)) + data[end:]
        elif kind == 3:
            data = data[:at] + draw.choice(TOKENS) + data[at:]
        elif kind == 4:
            data = data[:at] + draw.choice(TOKENS) + data[end:]
        elif kind == 5:
            data = data[:at] if draw.random() < 0.3 else data
        else:
            other = draw.randint(0, len(data))
            data = data[:at] + data[other : other + 40] + data[at:]
    return data


def damaged_value(draw: Random, value: Any) -> Any:
    """One to three changes at any depth of a value that JSON can hold, or just about cannot."""
    root = [json.loads(json.dumps(value))]
    for _ in range(draw.randint(1, 3)):
        holder, key = _place(draw, root)
        _damage(draw, holder, key)
    return root[0]


def written(draw: Random, value: Any, *, plain: Callable[[Any], bytes] | None = None) -> bytes:
    """As JSON: mostly in the canonical form, without which a reader looks no further; sometimes with a key twice."""
    if plain is not None and draw.random() < 0.8:
        # what has no canonical form is written in another
        with suppress(ReuseError):
            return plain(value)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=draw.random() < 0.3
    )
    if draw.random() < 0.1 and '"' in text:
        first = text.index('"')
        end = text.find(",", first)
        if end > 0:
            text = text[:end] + "," + text[first:end] + text[end:]
    return text.encode("utf-8", "surrogatepass")


def _place(draw: Random, root: list[Any]) -> tuple[Any, Any]:
    """A container and a key in it, the deeper the likelier."""
    holder, key = root, 0
    while isinstance(holder[key], dict | list) and holder[key] and draw.random() < 0.85:
        holder = holder[key]
        key = draw.choice([*holder] if isinstance(holder, dict) else range(len(holder)))
    return holder, key


def _damage(draw: Random, holder: Any, key: Any) -> None:
    old = holder[key]
    kind = draw.randrange(10)
    if kind == 0 and not (isinstance(holder, list) and len(holder) == 1):
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        new = draw.choice(("", "x", f"{key} ", str(key).upper(), "\u202e", str(key) + "\u0301"))
        holder[new] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.extend([old] * draw.choice((1, 3, 400)))
    elif kind == 3:
        holder[key] = draw.choice(([], {}, [old], {"a": old}, [[]], {"": None}))
    elif kind == 4:
        deep = old
        for _ in range(draw.choice((3, 40, 70, 300))):
            deep = [deep] if draw.random() < 0.5 else {"a": deep}
        holder[key] = deep
    elif kind == 5 and isinstance(old, str) and old:
        at = draw.randrange(len(old))
        holder[key] = (
            old[:at] + draw.choice(("", "0", "g", "\x00", "/", "\ud800", "é")) + old[at + 1 :]
        )
    elif kind == 6 and isinstance(old, int | float) and not isinstance(old, bool):
        holder[key] = draw.choice((-old, old + 1, old * 2**40, float(old), str(old)))
    elif kind == 7 and isinstance(holder, dict) and len(holder) > 1:
        other = draw.choice([*holder])
        holder[key], holder[other] = holder[other], holder[key]
    else:
        holder[key] = draw.choice(SCALARS)
