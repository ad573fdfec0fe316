"""What is inside archives, read without trusting them: no length is believed, nothing is written to disk.

Checksums and flags are passed over on purpose. Readers of models differ in which of them they heed, and an archive
that a scanner refuses for a wrong checksum is still opened by the library that it was made for.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from reuselib.scanning.formats import is_tar

MAX_MEMBERS = 2000
MAX_DATA = 8 << 20
"""Bytes of one member that are looked at."""
_MAX_DIRECTORY = 16 << 20
_MAX_RATIO = 500
_BOMB = 1 << 30
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    name: str
    data: bytes
    """Its beginning; empty if it cannot be read."""
    faults: tuple[tuple[str, str], ...] = ()
    """Codes of hazards with a message."""


@dataclass
class _Faults:
    """What is wrong with one member."""

    found: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def note(self, code: str, message: str) -> None:
        self.found.append((code, message))


def members(file: BinaryIO, kind: str) -> Iterator[Member]:
    """The members of an archive; of a compressed stream the one that it is.

    A fault of the archive itself comes as a member without a name.
    """
    if kind == "zip":
        yield from _zip(file)
    elif kind == "tar":
        yield from _tar(file)
    else:
        faults = _Faults()
        file.seek(0)
        yield Member("", _stream(file, kind, faults), tuple(faults.found))


def _zip(file: BinaryIO) -> Iterator[Member]:
    directory, shift, why = _directory(file)
    if why:
        yield Member("", b"", (("ARCHIVE_TRICK", why),))
        return
    total = 0
    for number, entry in enumerate(_entries(directory)):
        if number >= MAX_MEMBERS:
            yield Member("", b"", (("SCAN_LIMIT", f"only {MAX_MEMBERS} members were looked at"),))
            return
        total += entry.size
        yield _zip_member(file, entry, shift)
    if total > _BOMB and total > _MAX_RATIO * file.seek(0, io.SEEK_END):
        yield Member("", b"", (("ARCHIVE_BOMB", f"its members would take {total:,} bytes"),))


@dataclass(frozen=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    packed: int
    size: int
    offset: int


def _directory(file: BinaryIO) -> tuple[bytes, int, str]:
    """The central directory, how far the archive is shifted in its file, and why it cannot be had."""
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return b"", 0, "it begins as a zip archive and has no directory"
    place = end - len(tail) + at
    size, offset = struct.unpack("<II", tail[at + 12 : at + 20])
    # torch writes the records for large archives into small ones too
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        file.seek(struct.unpack("<Q", tail[at - 12 : at - 4])[0] % (end + 1))
        record = file.read(56)
        if len(record) < 56 or record[:4] != b"PK\x06\x06":
            return b"", 0, "its directory is not where it says"
        size, offset = struct.unpack("<QQ", record[40:56])
        place = place - 20 - 56
    if size > min(_MAX_DIRECTORY, end):
        return b"", 0, f"its directory claims {size:,} bytes"
    # readers differ: some believe the offset, others count back from the end
    for shift in dict.fromkeys((max(0, place - size - offset), 0)):
        file.seek(min(offset + shift, 2**62))
        directory = file.read(size)
        if directory[:4] == b"PK\x01\x02":
            return directory, shift, ""
    return b"", 0, "its directory is not where it says" if size else ""


def _entries(directory: bytes) -> Iterator[_Entry]:
    at = 0
    while directory[at : at + 4] == b"PK\x01\x02" and at + 46 <= len(directory):
        flags, method = struct.unpack("<HH", directory[at + 8 : at + 12])
        packed, size = struct.unpack("<II", directory[at + 20 : at + 28])
        lengths = struct.unpack("<HHH", directory[at + 28 : at + 34])
        (offset,) = struct.unpack("<I", directory[at + 42 : at + 46])
        name = directory[at + 46 : at + 46 + lengths[0]]
        extra = directory[at + 46 + lengths[0] : at + 46 + lengths[0] + lengths[1]]
        size, packed, offset = _wide(extra, [size, packed, offset])
        yield _Entry(name, flags, method, packed, size, offset)
        at += 46 + sum(lengths)


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """Sizes and offset that did not fit 32 bits, from the extra field that holds them."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1:
            words = [
                int.from_bytes(extra[place : place + 8], "little")
                for place in range(at + 4, at + 4 + length, 8)
            ]
            return [words.pop(0) if v == 0xFFFFFFFF and words else v for v in values]
        at += 4 + length
    return values


def _zip_member(file: BinaryIO, entry: _Entry, shift: int) -> Member:
    name, faults = _name(entry.name), _Faults()
    file.seek(min(entry.offset + shift, 2**62))
    head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        faults.note("ARCHIVE_TRICK", "the directory names a member that is not there")
        return Member(name, b"", tuple(faults.found))
    name_length, extra_length = struct.unpack("<HH", head[26:30])
    if file.read(name_length) != entry.name:
        faults.note("ARCHIVE_TRICK", "the member and the directory give it different names")
    file.seek(extra_length, io.SEEK_CUR)
    if entry.flags & 1:
        faults.note("ARCHIVE_TRICK", "it is marked as encrypted")
    kind = {0: "stored", 8: "deflate", 12: "bzip2", 14: "lzma"}.get(entry.method, "")
    if kind in ("", "lzma"):
        faults.note("ARCHIVE_UNREAD", f"it is packed by method {entry.method}")
        return Member(name, b"", tuple(faults.found))
    is_plain = kind == "stored"
    limit = min(entry.size, MAX_DATA)
    data = file.read(limit) if is_plain else _stream(file, kind, faults, alone=True)
    return Member(name, data, tuple(faults.found))


def _tar(file: BinaryIO) -> Iterator[Member]:
    at, number = 0, 0
    end = file.seek(0, io.SEEK_END)
    while at + 512 <= end:
        file.seek(at)
        head = file.read(512)
        if not any(head):
            return
        if not is_tar(head):
            yield Member("", b"", (("ARCHIVE_TRICK", "it goes on with something else"),))
            return
        if number >= MAX_MEMBERS:
            yield Member("", b"", (("SCAN_LIMIT", f"only {MAX_MEMBERS} members were looked at"),))
            return
        size = _octal(head[124:136])
        yield Member(_name(head[:100].split(b"\0")[0]), file.read(min(size, MAX_DATA)))
        at += 512 + -(-size // 512) * 512
        number += 1


def _octal(text: bytes) -> int:
    if text[:1] in (b"\x80", b"\xff"):  # a large one in binary
        return int.from_bytes(text[1:], "big")
    digits = text.strip(b" \0")
    try:
        return max(0, int(digits, 8))
    except ValueError:
        return 0


def _stream(file: BinaryIO, kind: str, faults: _Faults, *, alone: bool = False) -> bytes:
    """The beginning of what a compressed stream unpacks to; unless it is alone, with the streams behind it."""
    packed, found, chunk = 0, bytearray(), b""
    unpacker = _Unpacker(kind)
    try:
        while len(found) < MAX_DATA:
            if not chunk:
                chunk = file.read(_CHUNK)
                packed += len(chunk)
            if not chunk:
                break
            part, chunk = unpacker.take(chunk, MAX_DATA - len(found))
            found += part
            if unpacker.ended:
                # readers of a file go on with the next stream in it
                if alone or kind == "zlib" or not chunk.strip(b"\0"):
                    break
                unpacker = _Unpacker(kind)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, MemoryError) as error:
        faults.note("ARCHIVE_TRICK", f"it cannot be unpacked to its end ({error})")
    used = packed - len(chunk)
    if len(found) >= MAX_DATA and len(found) > _MAX_RATIO * used:
        faults.note("ARCHIVE_BOMB", f"{used:,} bytes of it unpack to more than {len(found):,}")
    return bytes(found)


class _Unpacker:
    """Unpacks at most as much as is asked for."""

    def __init__(self, kind: str) -> None:
        bits = {"gzip": 31, "zlib": 15, "deflate": -15}.get(kind)
        self._zlib = zlib.decompressobj(bits) if bits is not None else None
        self._other = (
            bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor(memlimit=1 << 26)
        )
        self.ended = False

    def take(self, data: bytes, limit: int) -> tuple[bytes, bytes]:
        """What the data unpacks to, and what is left of the data."""
        if self._zlib is not None:
            found = self._zlib.decompress(data, limit)
            self.ended = self._zlib.eof
            return found, self._zlib.unused_data if self.ended else self._zlib.unconsumed_tail
        found = self._other.decompress(data, limit)
        while not (self._other.eof or self._other.needs_input) and len(found) < limit:
            found += self._other.decompress(b"", limit - len(found))
        self.ended = self._other.eof
        return found, self._other.unused_data if self.ended else b""


def _name(raw: bytes) -> str:
    """As it may be shown."""
    return raw[:200].decode("utf-8", "replace").encode("unicode_escape").decode()
