"""What a file is, by its content: a suffix is only what somebody called it."""

from __future__ import annotations

import re
import zlib
from pathlib import PurePosixPath

START = 4096
"""Bytes from the beginning of a file that are enough to tell."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "gguf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK\x07\x08", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x7fELF", "elf"),
    (b"MZ", "pe"),
    (b"\xcf\xfa\xed\xfe", "mach-o"),
    (b"\xce\xfa\xed\xfe", "mach-o"),
    (b"\xca\xfe\xba\xbe", "java or mach-o"),
    (b"\x00asm", "wasm"),
    (b"#!", "script"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"%PDF-", "pdf"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
)
EXECUTABLE = ("elf", "pe", "mach-o", "java or mach-o", "wasm", "script", "python bytecode")
COMPRESSED = ("gzip", "bzip2", "xz", "zlib")
"""One stream, which the standard library can open."""
CONTAINERS = ("zip", "tar", *COMPRESSED)
CLOSED = ("7z", "zstd", "lz4", "rar")
"""Containers that are not looked into."""
OPAQUE = ("hdf5", "pdf", "sqlite")
"""Formats that may hold code and are not looked into."""
DATA = (
    "safetensors",
    "gguf",
    "json",
    "text",
    "npy",
    "onnx",
    "tflite",
    "image",
    "parquet",
    "arrow",
    "empty",
)

_SUFFIXES = {
    ".safetensors": ("safetensors",),
    ".gguf": ("gguf",),
    ".json": ("json",),
    ".jsonl": ("json", "text", "empty"),
    ".txt": ("text", "json", "empty"),
    ".md": ("text", "empty"),
    ".jinja": ("text", "json", "empty"),
    ".yaml": ("text", "json", "empty"),
    ".yml": ("text", "json", "empty"),
    ".npy": ("npy",),
    ".onnx": ("onnx",),
    ".tflite": ("tflite",),
}  # fmt: skip
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{\s*([\"}]|$)|\[\s*([\[{\"\d\]-]|true|false|null|$))")
_BYTECODE = re.compile(rb"[\x00-\xff]{2}\r\n", re.DOTALL)


def format_of(start: bytes, size: int, name: str = "") -> str:
    """The format of a file; `unknown` if it is none of those known here.

    Args:
        start: its first `START` bytes.
        size: its length.
        name: only to tell apart what looks the same: bytes of ONNX have no mark.
    """
    if not size:
        return "empty"
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[4:8] == b"TFL3":
        return "tflite"
    if _is_safetensors(start, size):
        return "safetensors"
    if is_tar(start):
        return "tar"
    if _is_zlib(start):
        return "zlib"
    if _BYTECODE.match(start) and name.endswith((".pyc", ".pyo")):
        return "python bytecode"
    if _is_text(start):
        return "json" if _JSON.match(start) else "text"
    return "onnx" if _is_onnx(start) else "unknown"


def misnamed(name: str, kind: str) -> bool:
    """Whether a file is something else than its suffix says."""
    return kind not in _SUFFIXES.get(PurePosixPath(name).suffix.lower(), (kind,))


def is_tar(block: bytes) -> bool:
    """Whether 512 bytes are the head of a tar's member: also of the oldest kind, which has no mark."""
    if len(block) < 512 or not any(block[:100]):
        return False
    try:
        stated = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block[:148]) + 8 * 32 + sum(block[156:512])


def _is_safetensors(start: bytes, size: int) -> bool:
    length = int.from_bytes(start[:8], "little")
    return 2 <= length <= size - 8 and start[8:9] == b"{"


def _is_zlib(start: bytes) -> bool:
    if (
        len(start) < 2
        or start[0] & 15 != 8
        or int.from_bytes(start[:2], "big") % 31
        or start[1] & 32
    ):
        return False
    try:
        return bool(zlib.decompressobj().decompress(start, 64))
    except zlib.error:
        return False


def _is_text(start: bytes) -> bool:
    if any(byte in start for byte in (b"\x00", b"\x01", b"\x02", b"\x03")):
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        # only a character that the end cuts in two may be broken
        return len(start) == START and error.start >= START - 4
    return True


def _is_onnx(start: bytes) -> bool:
    # a ModelProto begins with its version of the format, field 1, and names what wrote it, field 2
    return (
        start[:1] == b"\x08" and start[1:2] < b"\x20" and start[2:3] in (b"\x12", b"\x3a", b"\x42")
    )
