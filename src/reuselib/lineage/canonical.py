"""JSON as the record uses it: written in one canonical form (RFC 8785), read strictly.

Two readers must never understand the same bytes differently, so whatever JSON leaves open is
refused: repeated keys, NaN, lone surrogates, a byte order mark, numbers that a double cannot hold,
and input made to exhaust the reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from io import StringIO
from itertools import chain
from json.encoder import encode_basestring
from types import NoneType
from typing import TYPE_CHECKING, NoReturn, cast

import rfc8785

from reuselib.errors import IntegrityError

if TYPE_CHECKING:
    from reuselib.adapter import Json

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 64
_ROOM: Mapping[bytes, int] = {b",": 64, b":": 220, b"[": 64, b"{": 64}
"""Bytes of memory behind each sign, at most: an item or its place, a key with its entry, a container."""
_MAX_ROOM = 200 * 10**6
"""Enough for the header of a model of 100,000 tensors, or for two million indices."""
MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""
_MAX_INTEGER_LENGTH = len("-") + 21
"""A double is written as a plain integer up to 21 digits, with an exponent beyond."""


def dumps(value: Json | Mapping[str, object]) -> bytes:
    """Write a value in its only form.

    A float with an integral value is written as an integer (`1.0` as `1`), because JSON has one
    kind of number.

    Raises:
        IntegrityError: `BAD_JSON`, the value has no exact form in JSON.
    """
    _check(value)
    text = StringIO()
    try:
        _write(value, text.write)
        return text.getvalue().encode()
    except ValueError as error:
        raise IntegrityError(
            "BAD_JSON",
            f"a value cannot be written as JSON: {error}",
            fix="record only text, booleans, finite numbers, integers below 2^53, lists and mappings",
        ) from error


def _write(value: object, write: Callable[[str], object]) -> None:
    """As `rfc8785.dump`, which takes four times as long: what a manifest is made of is put together here."""
    kind = type(value)
    if kind is str:
        write(encode_basestring(value))
    elif kind is dict:
        items = cast("dict[str, object]", value)
        # the standard's order is that of UTF-16, in which ASCII comes as it is
        ascii_only = all(type(key) is str and key.isascii() for key in items)
        before = "{"
        for key in sorted(items, key=None if ascii_only else _utf16):
            write(f"{before}{encode_basestring(key)}:")
            _write(items[key], write)
            before = ","
        write("}" if items else "{}")
    elif kind is list or kind is tuple:
        before = "["
        for item in cast("list[object]", value):
            write(before)
            _write(item, write)
            before = ","
        write("]" if value else "[]")
    else:
        write(rfc8785.dumps(value).decode())  # type: ignore[arg-type]


def _utf16(key: object) -> bytes:
    if not isinstance(key, str):
        raise ValueError("object keys must be strings")
    return key.encode("utf-16-be")


def loads(data: bytes, *, path: str = "", limit: int = MAX_BYTES) -> Json:
    """Read JSON that leaves nothing to interpretation.

    Args:
        data: the bytes, UTF-8.
        path: name of the file, for the error.
        limit: the largest number of bytes accepted.

    Raises:
        IntegrityError: `BAD_JSON`, with the reason; `LIMIT`, it is too large.
    """

    def refuse(why: str) -> NoReturn:
        raise IntegrityError("BAD_JSON", f"{path or 'JSON'}: {why}", path=path)

    def pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
        mapping: dict[str, Json] = {}
        for key, item in items:
            if key in mapping:
                refuse(f"key {key!r} occurs twice")
            mapping[key] = item
        return mapping

    if len(data) > limit:
        what = f"{path or 'JSON'}: {len(data)} bytes, at most {limit} are read"
        raise IntegrityError("LIMIT", what, path=path)
    if (room := _room(data)) > _MAX_ROOM:
        what = f"{path or 'JSON'}: to read it may take {room // 10**6} MB of memory, more than {_MAX_ROOM // 10**6}"
        raise IntegrityError("LIMIT", what, path=path)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
        _check(value, path)
    except (ValueError, RecursionError) as error:
        refuse(str(error))
    return value


def _room(data: bytes) -> int:
    """Bytes of memory that reading takes at most: a list of empty lists takes twenty times what it has in the file."""
    # a single character beyond ASCII can make the whole text four times as wide
    text = len(data) * (2 if data.isascii() else 8)
    return text + sum(data.count(sign) * size for sign, size in _ROOM.items())


def _integer(literal: str) -> int | float:
    # The length comes first: turning a million digits into an integer takes quadratic time.
    if len(literal) <= _MAX_INTEGER_LENGTH:
        value = int(literal)
        if abs(value) <= MAX_INTEGER:
            return value
        # The canonical form of a large double is a plain integer, which no other number shares.
        if rfc8785.dumps(float(value)) == literal.encode():
            return float(value)
    raise ValueError(f"integer {literal[:24]} is beyond 2^53, where numbers are no longer exact")


def _float(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"number {literal[:24]} is too large")
    return value


def _constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not a JSON number")


def _check(value: object, path: str = "", depth: int = 0) -> None:
    """Refuse deep nesting and text that is not Unicode, in both directions alike."""
    kind = type(value)  # plain classes first: to ask whether something is a Mapping takes long
    if kind is str or isinstance(value, str):
        text = cast("str", value)
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise IntegrityError("BAD_JSON", f"{text!r} holds a lone surrogate", path=path)
    elif kind in (dict, list, tuple) or (
        kind not in (int, float, bool, NoneType) and isinstance(value, Mapping)
    ):
        if depth == MAX_DEPTH:
            raise IntegrityError("BAD_JSON", f"nested deeper than {MAX_DEPTH} levels", path=path)
        items = cast("Mapping[object, object] | list[object]", value)
        both = items.values() if kind is dict or isinstance(items, Mapping) else ()
        for item in chain(items, both):
            # most of what a record holds is short text, not worth a call
            if type(item) is not str or not item.isascii():
                _check(item, path, depth + 1)
