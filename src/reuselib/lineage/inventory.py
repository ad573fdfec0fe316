"""A model folder measured once: the digest of every payload file and of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reuselib.lineage.digest import Digests, dir_hash, payload_files
from reuselib.lineage.hashing import Span, sha256_all
from reuselib.lineage.headers import headers
from reuselib.lineage.rows import TensorRow, in_order, tensor_hash


@dataclass(frozen=True)
class Inventory:
    """What a model folder holds."""

    files: Mapping[str, str]
    """SHA-256 of the payload files, by relative path."""
    rows: tuple[TensorRow, ...]
    num_bytes: int
    """Of the payload."""

    @cached_property
    def digests(self) -> Digests:
        """The identity of the folder."""
        return Digests(dir_hash(self.files), tensor_hash(self.rows))


def take_inventory(folder: Path, *, follow_links: bool = False) -> Inventory:
    """Hash a model folder.

    Files and tensors go through the same pool of threads: a file can only be hashed from front to
    back, so of a model in one file the tensors keep the other cores busy.

    Raises:
        SourceError: there is no such folder, or it cannot be read.
        IntegrityError: `UNSAFE_PATH`, `BAD_SAFETENSORS`, `TRUNCATED` or `AMBIGUOUS_TENSOR`.
    """
    names = payload_files(folder, follow_links=follow_links)
    infos = list(headers(folder).values())
    files = [Span(folder / name) for name in names]
    tensors = [Span(folder / info.file, info.start, info.end) for info in infos]
    digests = sha256_all([*files, *tensors])
    rows = [
        TensorRow(info.name, info.dtype, info.shape, digest, info.file)
        for info, digest in zip(infos, digests[len(files) :], strict=True)
    ]
    return Inventory(
        files=dict(zip(names, digests[: len(files)], strict=True)),
        rows=tuple(in_order(rows)),
        num_bytes=sum(span.size for span in files),
    )
