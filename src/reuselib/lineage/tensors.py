"""Weights on disk, one tensor at a time: reading without loading a model, writing the same bytes every time.

The only file of this room that uses torch, and only once a tensor is asked for.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.disk import writing
from reuselib.lineage.headers import NUM_BITS, TensorInfo, headers

if TYPE_CHECKING:
    import torch

_TORCH_NAMES: Mapping[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "I64": "int64",
    "U64": "uint64",
    "F64": "float64",
    "C64": "complex64",
}


class Tensors(Mapping[str, "torch.Tensor"]):
    """The tensors of a model folder by name, each read when it is asked for and not kept.

    A tensor shares its memory with the file until it is written to, and then has its own: the file
    never changes.
    """

    def __init__(self, folder: Path) -> None:
        """Read the headers of a model folder's safetensors files."""
        self.folder = folder
        self._infos = headers(folder)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Read one tensor."""
        import torch

        info = self.info(name)
        dtype = _torch_dtype(info)
        if info.start == info.end:
            return torch.empty(info.shape, dtype=dtype)
        # A mapping must begin at a page. It lives as long as the tensor made of it.
        skipped = info.start % mmap.ALLOCATIONGRANULARITY
        first = info.start - skipped
        with (self.folder / info.file).open("rb") as file:
            mapping = mmap.mmap(
                file.fileno(), info.end - first, offset=first, access=mmap.ACCESS_COPY
            )
        # Tensors in a file are packed, so one may start where its type must not; then it is copied.
        buffer = bytearray(mapping[skipped:]) if info.start % dtype.itemsize else mapping
        return torch.frombuffer(
            buffer,
            dtype=dtype,
            count=math.prod(info.shape),
            offset=skipped if buffer is mapping else 0,
        ).reshape(info.shape)

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._infos)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._infos)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; not by reading it, as a mapping would."""
        return name in self._infos

    def info(self, name: str) -> TensorInfo:
        """Type, shape and place of a tensor, without reading it."""
        return self._infos[name]


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; equal tensors and metadata give equal bytes, whatever their order.

    Tensors that share memory are each written in full.

    Raises:
        StoreError: the file cannot be written.
    """
    # Wide types first, as the format's own writer has it: every tensor then starts where its type
    # may.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name.encode()))
    codes = dtype_codes()
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = canonical.dumps(header)
    text += b" " * (-len(text) % 8)
    with writing(path), path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(raw_bytes(tensors[name]))


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor as a file holds them, shared with it if it is contiguous and on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def dtype_codes() -> dict[torch.dtype, str]:
    """The name of each type in a safetensors file."""
    import torch

    return {getattr(torch, name): code for code, name in _TORCH_NAMES.items()}


def _torch_dtype(info: TensorInfo) -> torch.dtype:
    import torch

    if info.dtype not in _TORCH_NAMES:
        raise IntegrityError(
            "UNSUPPORTED_DTYPE",
            f"tensor {info.name!r} is stored as {info.dtype} ({NUM_BITS[info.dtype]} bits), "
            "which torch has no plain type for",
            path=info.file,
            tensor=info.name,
        )
    return getattr(torch, _TORCH_NAMES[info.dtype])
