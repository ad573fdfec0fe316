"""Safetensors files written a tensor at a time, in any order: where each lies follows from types and shapes alone.

Byte for byte what the format's own writer makes of the same tensors (`safetensors.torch.save_file`, which needs them
all at once).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from reuselib.errors import LawBroken, StoreError
from reuselib.lineage import canonical
from reuselib.lineage.disk import ANOTHER_STORE, writing
from reuselib.lineage.tensors import dtype_codes, raw_bytes

if TYPE_CHECKING:
    import torch

_ORDER = (
    *("U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16"),
    *("F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"),
)
"""In which order the format's writer puts types, the widest first; within a type it goes by name."""

Aliases = Mapping[str, "str | None"]
"""By another name of a tensor, such as that of a second layer which shares it, the one by which a file holds it; None
for one that no file holds."""


@dataclass(frozen=True)
class Layout:
    """One file, before any tensor is there."""

    path: Path
    outlines: Mapping[str, torch.Tensor]
    """By name, in the order in which they lie; only type and shape count, so they may be on the meta device."""
    header: bytes
    starts: Mapping[str, int]
    """Where the bytes of each tensor begin in the file."""
    num_bytes: int
    """Of the file."""

    @classmethod
    def of(
        cls, path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
    ) -> Layout:
        """Find a place for each tensor."""
        codes = dtype_codes()
        names = sorted(
            tensors, key=lambda name: (_ORDER.index(codes[tensors[name].dtype]), name.encode())
        )
        parts = [b'"__metadata__":' + canonical.dumps(dict(metadata))] if metadata else []
        offsets: dict[str, int] = {}
        end = 0
        for name in names:
            tensor = tensors[name]
            offsets[name], end = end, end + tensor.numel() * tensor.dtype.itemsize
            shape = ",".join(map(str, tensor.shape))
            place = f'"shape":[{shape}],"data_offsets":[{offsets[name]},{end}]'
            told = f':{{"dtype":"{codes[tensor.dtype]}",{place}}}'
            parts.append(canonical.dumps(name) + told.encode())
        text = b"{" + b",".join(parts) + b"}"
        text += b" " * (-len(text) % 8)
        header = len(text).to_bytes(8, "little") + text
        return cls(
            path,
            {name: tensors[name] for name in names},
            header,
            {name: len(header) + offset for name, offset in offsets.items()},
            len(header) + end,
        )


def write_laid_out(
    layouts: Sequence[Layout], tensors: Iterable[tuple[str, torch.Tensor]], *, aliases: Aliases
) -> None:
    """Write files of one folder, each tensor where it belongs, as they come.

    Args:
        layouts: of the files.
        tensors: every one of them once, with its name.
        aliases: see there.

    Raises:
        StoreError: the disk has not enough room for them, or they cannot be written.
        LawBroken: a tensor is missing, is there twice, or is of another type or shape than was said.
    """
    _require_room(layouts[0].path.parent, sum(each.num_bytes for each in layouts))
    lacking = {name for each in layouts for name in each.outlines}
    with ExitStack() as stack:
        files = [stack.enter_context(_begun(each)) for each in layouts]
        homes = {name: number for number, each in enumerate(layouts) for name in each.outlines}
        for given, tensor in tensors:
            name = aliases.get(given, given)
            if name is None:
                continue
            if name not in lacking:
                raise _broken(
                    f"{given} is there twice" if name in homes else f"{given} has no place"
                )
            layout = layouts[homes[name]]
            _require_likeness(name, tensor, layout.outlines[name])
            with writing(layout.path):
                file = files[homes[name]]
                file.seek(layout.starts[name])
                file.write(raw_bytes(tensor))
            lacking.remove(name)
    if lacking:
        raise _broken(f"{min(lacking)} is missing")


@contextmanager
def _begun(layout: Layout) -> Iterator[IO[bytes]]:
    with writing(layout.path):
        file = layout.path.open("wb")
    with file:
        with writing(layout.path):
            file.write(layout.header)
            file.truncate(layout.num_bytes)
        yield file


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"the model needs {needed / 1e9:.2f} GB on the disk of {folder}, which has {free / 1e9:.2f} GB free",
            expected="a disk with room for the model",
            fix=f"free some space, or {ANOTHER_STORE}",
        )


def _require_likeness(name: str, tensor: torch.Tensor, outline: torch.Tensor) -> None:
    if tensor.dtype != outline.dtype or tensor.shape != outline.shape:
        raise _broken(
            f"{name} is {tensor.dtype} {list(tensor.shape)}, but the network says {outline.dtype} {list(outline.shape)}"
        )


def _broken(what: str) -> LawBroken:
    return LawBroken(
        "rebuild",
        f"what was written tensor by tensor is not the network that it was to be: {what}",
        fix="let the adapter's `stream` give each tensor of its network once",
    )
