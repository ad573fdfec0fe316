"""What safetensors files hold, read from their headers alone and without trusting them.

The usual readers accept a header that names a tensor twice (the last one wins), so two readers may
see different weights in one file. Here a header has one meaning or is refused, before any memory of
the size it claims is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeGuard

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.shards import check_indexes

if TYPE_CHECKING:
    from reuselib.adapter import Json

MAX_HEADER = 2**25
"""Stricter than the format's 100 MB: that of 100,000 tensors has a third of this, and more would not fit in memory."""
MAX_NAME = 2**12
"""Characters; a name longer than this would only serve to fill messages."""
MAX_DIMENSIONS = 64
"""Of a tensor, as many as torch has. The product of a million sizes takes for ever."""
NUM_BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of one element, by the name safetensors gives the type."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is, and how to read its bytes."""

    name: str
    dtype: str
    """As safetensors writes it, such as `F32`."""
    shape: tuple[int, ...]
    file: str
    start: int
    """Offset in the file."""
    end: int


def headers(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a model folder, by name; from all safetensors files at its top, whatever they are called.

    Raises:
        IntegrityError: `BAD_SAFETENSORS`, `TRUNCATED`, `AMBIGUOUS_TENSOR` for a name in two files, or what
            `check_indexes` raises.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, info in read_header(path).items():
            if name in tensors:
                raise IntegrityError(
                    "AMBIGUOUS_TENSOR",
                    f"tensor {name!r} is in {tensors[name].file} and in {info.file}",
                    path=info.file,
                    tensor=name,
                    fix="keep one of the two files; which one a reader takes is not defined",
                )
            tensors[name] = info
    check_indexes(folder, tensors)
    return tensors


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one file, by name."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < 8:
                raise IntegrityError("TRUNCATED", f"{path.name} has {size} bytes", path=path.name)
            num_bytes = int.from_bytes(file.read(8), "little")
            if num_bytes > min(size - 8, MAX_HEADER):
                raise IntegrityError(
                    "BAD_SAFETENSORS",
                    f"{path.name} claims a header of {num_bytes} bytes in a file of {size}; "
                    f"at most {MAX_HEADER} are read",
                    path=path.name,
                )
            header = file.read(num_bytes)
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror}", fix="check the path and its permissions"
        ) from error
    return parse_header(header, size - 8 - num_bytes, path.name)


def parse_header(header: bytes, num_data_bytes: int, file: str) -> dict[str, TensorInfo]:
    """The tensors that a header describes.

    Args:
        header: the JSON, without the length in front.
        num_data_bytes: bytes that follow the header in the file.
        file: name of the file.

    Raises:
        IntegrityError: `BAD_SAFETENSORS`; `TRUNCATED` if the header is sound and only data is missing.
    """
    try:
        content = canonical.loads(header, limit=MAX_HEADER)
    except IntegrityError as error:
        why = error.what.removeprefix(f"{error.code}: ")
        raise IntegrityError("BAD_SAFETENSORS", f"{file}: header: {why}", path=file) from error
    # Leading white space is legal JSON, but the format demands the brace at once.
    if not isinstance(content, dict) or not header.startswith(b"{"):
        raise IntegrityError("BAD_SAFETENSORS", f"{file}: header is not a mapping", path=file)
    _check_metadata(content.pop("__metadata__", {}), file)
    for name in content:
        if len(name) > MAX_NAME:
            what = f"{file}: a tensor has a name of {len(name)} characters"
            raise IntegrityError("BAD_SAFETENSORS", what, path=file)
    offset = 8 + len(header)
    tensors = {name: _tensor(name, entry, file, offset) for name, entry in content.items()}
    _check_layout(tensors, offset, num_data_bytes, file)
    return tensors


def _tensor(name: str, entry: Json, file: str, offset: int) -> TensorInfo:
    def refuse(why: str) -> NoReturn:
        raise IntegrityError(
            "BAD_SAFETENSORS", f"{file}: tensor {name!r}: {why}", path=file, tensor=name
        )

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        refuse("expected exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUM_BITS:
        refuse(f"unknown dtype {dtype!r}")
    if not are_counts(shape) or not are_counts(offsets) or len(offsets) != 2:
        refuse(f"shape {shape!r} or data_offsets {offsets!r} are not what they should be")
    if len(shape) > MAX_DIMENSIONS:
        refuse(f"{len(shape)} dimensions, at most {MAX_DIMENSIONS}")
    num_bits = math.prod(shape) * NUM_BITS[dtype]
    if num_bits % 8 or num_bits // 8 != offsets[1] - offsets[0]:
        refuse(f"{dtype} of shape {shape} does not take {offsets[1] - offsets[0]} bytes")
    return TensorInfo(name, dtype, tuple(shape), file, offset + offsets[0], offset + offsets[1])


def are_counts(value: Json) -> TypeGuard[list[int]]:
    """Whether a value is a list of integers that can count something; `true` is none."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_metadata(metadata: Json, file: str) -> None:
    if not isinstance(metadata, dict) or not all(
        isinstance(text, str) for text in metadata.values()
    ):
        raise IntegrityError(
            "BAD_SAFETENSORS", f"{file}: __metadata__ is not text by key", path=file
        )


def _check_layout(
    tensors: Mapping[str, TensorInfo], offset: int, num_data_bytes: int, file: str
) -> None:
    """Tensors must cover the data without overlap or hole: hidden bytes could be another file format."""
    cursor = offset
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != cursor:
            kind = "overlaps the one before" if info.start < cursor else "leaves a hole before it"
            raise IntegrityError(
                "BAD_SAFETENSORS",
                f"{file}: tensor {info.name!r} {kind}",
                path=file,
                tensor=info.name,
            )
        cursor = info.end
    missing = cursor - offset - num_data_bytes
    if missing > 0:
        raise IntegrityError("TRUNCATED", f"{file} ends {missing} bytes early", path=file)
    if missing < 0:
        raise IntegrityError(
            "BAD_SAFETENSORS", f"{file} has {-missing} bytes that belong to no tensor", path=file
        )
