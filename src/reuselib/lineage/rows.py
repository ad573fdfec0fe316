"""The tensor inventory: one row a tensor, and the identity of the weights made from the rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.headers import NUM_BITS, are_counts

MAX_ROWS = 1_000_000


@dataclass(frozen=True)
class TensorRow:
    """One tensor of a model: what it is, the digest of its bytes, and the file that holds it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    """Of the raw little-endian, C-contiguous bytes."""
    file: str


def in_order(rows: Iterable[TensorRow]) -> list[TensorRow]:
    """Sorted by name, as UTF-8 bytes."""
    return sorted(rows, key=lambda row: row.name.encode())


def tensor_hash(rows: Iterable[TensorRow]) -> str:
    """`tensorHash1`, the identity of weights whatever the container: files, order and metadata do not count."""
    return inventory_hash("tensorHash1", rows)


def inventory_hash(algorithm: str, rows: Iterable[TensorRow]) -> str:
    """The digest over tensors that begins with the name of what it is the digest of."""
    digest = hashlib.sha256(f"{algorithm}\n".encode())
    for row in in_order(rows):
        shape = ",".join(map(str, row.shape))
        digest.update(f"{row.sha256}  {row.dtype}  {shape}  ".encode())
        digest.update(canonical.dumps(row.name) + b"\n")
    return digest.hexdigest()


def dump_rows(rows: Iterable[TensorRow]) -> bytes:
    """As JSON lines."""
    return b"".join(canonical.dumps(asdict(row)) + b"\n" for row in in_order(rows))


def parse_rows(data: bytes, *, path: str = "") -> list[TensorRow]:
    """Read what `dump_rows` wrote.

    Raises:
        IntegrityError: `BAD_JSON` or `LIMIT`.
    """
    lines = data.splitlines()
    if len(lines) > MAX_ROWS:
        raise IntegrityError("LIMIT", f"{len(lines)} rows, at most {MAX_ROWS} are read", path=path)
    rows = [_row(line, path) for line in lines]
    _refuse_repeats(rows, path)
    return rows


def _row(line: bytes, path: str) -> TensorRow:
    row = canonical.loads(line, path=path)
    match row:
        case {
            "name": str(name),
            "dtype": str(dtype),
            "shape": list(shape),
            "sha256": str(sha256),
            "file": str(file),
        }:
            is_sound = len(row) == 5 and dtype in NUM_BITS and re.fullmatch("[0-9a-f]{64}", sha256)
            if is_sound and are_counts(shape):
                return TensorRow(name, dtype, tuple(shape), sha256, file)
    raise IntegrityError(
        "BAD_JSON", f"{path}: not a row of a tensor inventory: {line[:200]!r}", path=path
    )


def _refuse_repeats(rows: Sequence[TensorRow], path: str) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            raise IntegrityError(
                "AMBIGUOUS_TENSOR", f"{path} lists {row.name!r} twice", path=path, tensor=row.name
            )
        seen.add(row.name)
