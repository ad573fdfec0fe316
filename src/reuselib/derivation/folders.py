"""What folders of models hold, from headers and indexes alone, and what those of children will take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import SourceError
from reuselib.lineage.headers import headers
from reuselib.network.sharing import shared_names

if TYPE_CHECKING:
    import torch
    from torch import nn

    from reuselib.adapter import Adapted, Adapter

RECORD_BYTES = 24_000
"""Of a child: manifest, figures, environment and card; and for each tensor `ROW_BYTES` in its list, and as many in the
header of its file."""
ROW_BYTES = 180


def child_bytes(adapter: Adapter, adapted: Adapted, folder: Path) -> int:
    """A child's folder: weights, the files that go with them, and the record."""
    import torch

    module = adapted.module
    tensors = (
        {id(each): each for each in (*module.parameters(), *module.buffers())}.values()
        if adapter.whole
        else [each for each in module.parameters() if each.requires_grad]
    )
    kind: torch.dtype = getattr(torch, adapted.dtype)
    size = sum(
        each.numel() * (kind if each.is_floating_point() else each.dtype).itemsize
        for each in tensors
    )
    beside = _other_files(folder) if adapter.whole else 0
    return size + beside + RECORD_BYTES + 2 * ROW_BYTES * len(tensors)


def stored_bytes(folder: Path) -> int | None:
    """Of the weights on disk; where only their index is at hand, what that says; None if nothing does."""
    files = [*folder.glob("*.safetensors")]
    if files:
        return sum(each.stat().st_size for each in files)
    index = _index(folder)
    told = index.get("metadata", {}).get("total_size") if index else None
    return told if isinstance(told, int) else None


def fresh_tensors(head: tuple[str, ...], module: nn.Module, folder: Path) -> frozenset[str]:
    """Tensors of the head that a folder does not hold, or holds in another shape; not those of the rest as well."""
    shapes = _known_shapes(folder)
    if shapes is None:
        return frozenset()
    starts = tuple(f"{name}." for name in head) or "\0"
    shared = shared_names(module)
    return frozenset(
        name
        for name, value in module.state_dict().items()
        if shared[name].startswith(starts)
        and shapes.get(name, ()) not in (None, tuple(value.shape))
    )


def _known_shapes(folder: Path) -> Mapping[str, tuple[int, ...] | None] | None:
    """By name; None for a shape that only a header would say."""
    if any(folder.glob("*.safetensors")):
        return {name: info.shape for name, info in headers(folder).items()}
    index = _index(folder)
    return None if index is None else dict.fromkeys(index.get("weight_map", {}))


def _index(folder: Path) -> dict | None:
    """What a folder says about files that need not be at hand.

    Raises:
        SourceError: it cannot be understood.
    """
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _not_an_index(path, str(error)) from None
    for name in ("weight_map", "metadata"):
        if not isinstance(index, dict) or not isinstance(index.get(name, {}), dict):
            raise _not_an_index(path, f"`{name}` is no object")
    return index


def _not_an_index(path: Path, problem: str) -> SourceError:
    return SourceError(
        f"'{path}' is not an index of weights: {problem}",
        expected="a JSON object with the file of each tensor in `weight_map`",
        fix="download it again",
    )


def _other_files(folder: Path) -> int:
    """Configuration and processor."""
    return sum(
        path.stat().st_size
        for path in folder.iterdir()
        if path.suffix in (".json", ".txt", ".model") and not path.name.endswith(".index.json")
    )
