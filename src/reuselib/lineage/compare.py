"""Recorded against found: which file and which tensor differ, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from reuselib.errors import IntegrityError
from reuselib.lineage.rows import TensorRow

_INERT = (".md", ".rst", ".pdf", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".log", ".sig")
"""Suffixes of files that people read and no library does. Whatever else is there, some library may know its name."""
_KNOWN = (
    ".safetensors",
    ".json",
    ".jinja",
    ".txt",
    ".model",
    ".gguf",
    ".onnx",
    ".h5",
    ".py",
    ".bin",
    ".pt",
    ".pth",
)
_KNOWN += (
    ".ckpt",
    ".pkl",
    ".vocab",
    ".tiktoken",
    ".yaml",
    ".yml",
    ".msgpack",
    ".ot",
    ".bpe",
    ".codes",
    ".spm",
)
_KNOWN += (".keras", ".tflite", ".npz", ".npy", ".pb", ".mlmodel", ".so", ".dll")
"""Suffixes of files that some library is known to read when it finds them in a model folder."""
_NOTICES = ("license", "licence", "notice", "copying", "authors", "citation", "changelog")
_GIT = (".git", ".github", ".gitattributes", ".gitignore", ".gitkeep")
_RESTORE = "get the folder again from where it came, or make the model again from its recipe"


def is_loadable(name: str) -> bool:
    """Whether some library may read a file, by relative path, when it finds it in a model folder."""
    path = PurePosixPath(name.lower())
    is_notice = path.stem in _NOTICES and path.suffix in ("", ".txt")
    return not (path.suffix in _INERT or is_notice or path.parts[0] in _GIT)


def is_surely_loadable(name: str) -> bool:
    """Whether a library is known that would. For files that a signer left out on purpose, which may have any name."""
    return PurePosixPath(name).suffix.lower() in _KNOWN


def changed_tensors(
    recorded: Iterable[TensorRow], found: Iterable[TensorRow]
) -> Iterator[IntegrityError]:
    """One error for each tensor that is not as recorded."""
    before = {row.name: row for row in recorded}
    after = {row.name: row for row in found}
    for name, row in before.items():
        other = after.get(name)
        if other is None:
            yield _tensor(row, "MISSING_TENSOR", "is recorded but not there")
        elif (row.dtype, row.shape) != (other.dtype, other.shape):
            now = f"{other.dtype} {list(other.shape)}, recorded {row.dtype} {list(row.shape)}"
            yield _tensor(other, "DIGEST_MISMATCH", f"is {now}")
        elif row.sha256 != other.sha256:
            yield _tensor(other, "DIGEST_MISMATCH", "has other values than recorded")
        elif row.file != other.file:
            yield _tensor(other, "DIGEST_MISMATCH", f"is recorded in {row.file}")
    for name, row in after.items():
        if name not in before:
            yield _tensor(row, "UNKNOWN_TENSOR", "is there but not recorded")


def _tensor(row: TensorRow, code: str, what: str) -> IntegrityError:
    return IntegrityError(
        code,
        f"{row.file}: tensor {row.name!r} {what}",
        path=row.file,
        tensor=row.name,
        fix=_RESTORE,
    )


def changed_files(
    recorded: Mapping[str, str], found: Mapping[str, str], explained: frozenset[str]
) -> Iterator[IntegrityError]:
    """One error for each file that is not as recorded.

    Args:
        recorded: SHA-256 by path.
        found: likewise.
        explained: files whose difference is already named by a tensor.
    """
    missing = {name: digest for name, digest in recorded.items() if name not in found}
    for name, digest in found.items():
        if name not in recorded:
            former = next((old for old, before in missing.items() if before == digest), None)
            yield _unrecorded(name, former)
        elif digest != recorded[name] and name not in explained:
            yield IntegrityError(
                "DIGEST_MISMATCH",
                f"{name} was changed: its sha256 is {digest}, recorded {recorded[name]}",
                path=name,
                fix=_RESTORE,
            )
    for name in missing:
        yield IntegrityError(
            "MISSING_FILE", f"{name} is recorded but not there", path=name, fix=_RESTORE
        )


def _unrecorded(name: str, former: str | None) -> IntegrityError:
    if former is not None:
        return IntegrityError(
            "DIGEST_MISMATCH", f"{name} is recorded as {former}: renamed", path=name, fix=_RESTORE
        )
    loadable = is_loadable(name)
    return IntegrityError(
        "UNSIGNED_LOADABLE" if loadable else "UNSIGNED_FILE",
        f"{name} is not recorded" + (", and some library may load it" if loadable else ""),
        path=name,
        fix="remove it, if you know where it came from",
    )
