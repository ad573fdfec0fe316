r"""What rows are, whatever file or cache they came from.

Three nested digests, each written so that another program can compute it again:

- row: sha256 of the row as JSON: keys sorted, no spaces, everything beyond ASCII escaped, floats in
  their shortest exact form. `1`, `1.0`, `true` and `"1"` differ. Values outside JSON are replaced
  as `_leaf` says.
- split: sha256 of `rowsHash1\n`, the sorted column names as such JSON and a newline, then a line
  with the digest of each row, in order.
- data: sha256 of `dataHash1\n`, then one line `<digest of the split>  <name>\n` for each split, in
  order of name.

So the same values in jsonl, csv and parquet give the same digest, which the cache key of a library
does not. An image that comes from an encoded file counts by the bytes of that file: decoders differ
in the last bit between versions.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reuselib.data.rows import Encoded, plain
from reuselib.errors import DataError

if TYPE_CHECKING:
    from reuselib.task import Rows


def row_hashes(rows: Rows) -> list[bytes]:
    """The sha256 of each row, in order.

    Raises:
        DataError: a value has no form that could be hashed; names row and column.
    """
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_leaf).encode
    hashes = []
    for index, row in enumerate(plain(rows)):
        try:
            hashes.append(
                hashlib.sha256(
                    encode(row if isinstance(row, dict) else dict(row)).encode()
                ).digest()
            )
        except (TypeError, ValueError, RecursionError):
            raise _unhashable(index, row) from None
    return hashes


def split_digest(columns: Iterable[str], hashes: Iterable[bytes]) -> str:
    """The digest of one split, from its columns and the hashes of its rows."""
    digest = hashlib.sha256(b"rowsHash1\n")
    digest.update(json.dumps(sorted(columns), separators=(",", ":")).encode() + b"\n")
    for row in hashes:
        digest.update(row.hex().encode() + b"\n")
    return digest.hexdigest()


def data_digest(splits: Mapping[str, str]) -> str:
    """The digest of all splits together, from the digest of each."""
    lines = "".join(f"{splits[name]}  {name}\n" for name in sorted(splits))
    return hashlib.sha256(b"dataHash1\n" + lines.encode()).hexdigest()


def _leaf(value: object) -> object:
    """A JSON value for what JSON does not know; the key that starts with `$` says what it was."""
    if isinstance(value, Encoded):
        return {"$file": hashlib.sha256(value.data).hexdigest()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, datetime.date | datetime.time):
        return {"$time": value.isoformat()}
    if isinstance(value, decimal.Decimal):
        return {"$decimal": str(value)}
    if "numpy" in sys.modules:
        import numpy as np

        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray) and value.dtype != object:
            # Little-endian and C-contiguous: the machine that made the array does not matter.
            array = value.astype(value.dtype.newbyteorder("<"), order="C")
            content = hashlib.sha256(array.tobytes()).hexdigest()
            parts = [value.dtype.name, list(value.shape), content]
            return {"$array": parts}
    if "PIL.Image" in sys.modules:
        from PIL import Image

        if isinstance(value, Image.Image):
            pixels = hashlib.sha256(value.tobytes()).hexdigest()
            return {"$image": [value.mode, list(value.size), pixels]}
    raise TypeError(type(value).__name__)


def _unhashable(index: int, row: Mapping[str, Any]) -> DataError:
    if not isinstance(row, Mapping):
        return DataError(
            f"row {index} is a {type(row).__name__}: {row!r:.80}",
            expected="a mapping of column name to value",
            fix="pass rows such as {'text': 'good', 'label': 1}",
        )
    for column, value in row.items():
        try:
            json.dumps(value, sort_keys=True, default=_leaf)
        except (TypeError, ValueError, RecursionError):
            return DataError(
                f"column '{column}' of row {index} holds a {type(value).__name__}, "
                "which has no fixed form",
                expected="text, numbers, booleans, None, lists and mappings of these; "
                "bytes, times, numpy arrays, images",
                fix="convert the column, or leave it out",
            )
    return DataError(
        f"row {index} has column names that are not text", expected="names of type str"
    )
