"""The weights of any model folder by layer: integer layers are one tensor each, with what they stand for."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import SourceError
from reuselib.lineage.headers import headers
from reuselib.lineage.inventory import Inventory, take_inventory
from reuselib.lineage.manifest import MANIFEST
from reuselib.lineage.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.lineage.headers import TensorInfo
    from reuselib.lineage.rows import TensorRow

INTEGER = {"int8": 8, "int4": 4}
"""Bits of the codes in an integer layer, by the name it has here as a type."""


@dataclass(frozen=True)
class Logical:
    """One weight as a network uses it."""

    name: str
    dtype: str
    """As safetensors writes it, such as `F32`; `int8` or `int4` for codes with scales."""
    shape: tuple[int, ...]
    parts: tuple[TensorRow, ...]
    """The tensors in the file: one, or codes and scales."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The same for two weights only if every bit is."""
        return (self.dtype, str(self.shape), *(part.sha256 for part in self.parts))

    @property
    def num_elements(self) -> int:
        """Weights it stands for."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class View:
    """A model folder, hashed; weights are read when they are asked for."""

    folder: Path
    inventory: Inventory

    @classmethod
    def of(cls, folder: Path) -> View:
        """Hash a folder; links into the blobs of a hub cache are followed.

        Raises:
            SourceError: as `take_inventory`, or there is neither a model in the folder nor the record of one.
            IntegrityError: as `take_inventory`.
        """
        inventory = take_inventory(folder, follow_links=True)
        if not inventory.files and not (folder / MANIFEST).exists():
            raise SourceError(
                f"{folder} holds no model",
                expected="a folder with weights, a config.json or a manifest",
                fix="check the path",
            )
        return cls(folder, inventory)

    @cached_property
    def weights(self) -> Mapping[str, Logical]:
        """Everything in the folder's safetensors files, by name."""
        return {each.name: each for each in _logical(self.folder, self.inventory)}

    @cached_property
    def _tensors(self) -> Tensors:
        return Tensors(self.folder)

    def read(self, name: str) -> Tensor:
        """What a weight stands for, as it is stored or, for codes, in fp32.

        Raises:
            IntegrityError: `UNSUPPORTED_DTYPE`, there is no plain type for it.
        """
        weight = self.weights[name]
        if weight.dtype not in INTEGER:
            tensor = self._tensors[name]
            if tensor.is_complex():
                import torch

                return torch.view_as_real(tensor)
            return tensor
        from reuselib.quantization.grid import restore
        from reuselib.quantization.packing import unpack

        codes = self._tensors[weight.parts[0].name]
        if weight.parts[0].dtype == "I32":
            codes = unpack(codes, INTEGER[weight.dtype], weight.shape[1])
        return restore(codes, self.scales(name))

    def scales(self, name: str) -> Tensor:
        """The steps of an integer layer: fp32 [rows, groups]."""
        return self._tensors[self.weights[name].parts[1].name].float()

    @property
    def is_update(self) -> bool:
        """Whether the folder holds a low-rank update only, as peft writes it."""
        return any(".lora_A." in name for name in self.weights)


def _logical(folder: Path, inventory: Inventory) -> Iterator[Logical]:
    rows = {row.name: row for row in inventory.rows}
    used: set[str] = set()
    scales = [row for name, row in rows.items() if name.endswith(".weight_scale")]
    infos = headers(folder) if scales else {}
    for scale in scales:
        layer = _layer(folder, rows, scale, infos)
        if layer is not None:
            used.update({scale.name, f"{layer.name}_shape", *(part.name for part in layer.parts)})
            yield layer
    for name, row in rows.items():
        if name not in used:
            yield Logical(name, row.dtype, row.shape, (row,))


def _layer(
    folder: Path, rows: Mapping[str, TensorRow], scale: TensorRow, infos: Mapping[str, TensorInfo]
) -> Logical | None:
    """The integer layer that a scale belongs to, if codes and scale fit each other."""
    name = scale.name.removesuffix("_scale")
    codes = rows.get(name)
    if codes is not None and codes.dtype == "I8" and len(codes.shape) == 2:
        shape, dtype = codes.shape, "int8"
    else:
        codes, row = rows.get(f"{name}_packed"), rows.get(f"{name}_shape")
        if codes is None or row is None or codes.dtype != "I32" or len(codes.shape) != 2:
            return None
        shape = _recorded_shape(folder, infos[row.name])
        widths = {bits: -(-shape[1] * bits // 32) for bits in (4, 8)} if len(shape) == 2 else {}
        fitting = [
            f"int{bits}" for bits, words in widths.items() if codes.shape == (shape[0], words)
        ]
        if not fitting:
            return None
        dtype = fitting[0]
    fits = (
        len(scale.shape) == 2
        and scale.dtype in ("F32", "F16", "BF16")
        and scale.shape[0] == shape[0]
        and 0 < scale.shape[1] <= shape[1]
        and shape[1] % scale.shape[1] == 0
    )
    return Logical(name, dtype, shape, (codes, scale)) if fits else None


def _recorded_shape(folder: Path, info: TensorInfo) -> tuple[int, ...]:
    """The sizes in a `weight_shape` tensor, read without torch; nothing if it is none."""
    if info.dtype != "I64" or info.shape != (2,):
        return ()
    try:
        with (folder / info.file).open("rb") as file:
            file.seek(info.start)
            sizes = struct.unpack("<2q", file.read(16))
    except (OSError, struct.error):
        return ()
    return sizes if min(sizes) > 0 else ()
