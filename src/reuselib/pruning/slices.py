"""What is left of a network whose layers lost channels, as plain JSON: kept indices by tensor, and the layers' sizes.

The record holds each index set once, says along which dimension of which tensor it is kept, and what the layers'
own attributes say afterwards:

    {"keep": {"0": [0, 2, 3]}, "tensors": {"conv.weight": {"0": "0"}}, "layers": {"conv": {"out_channels": 3}}}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.adapter import Json
from reuselib.errors import IncompatibleStep, IntegrityError
from reuselib.lineage.structure import Structure, is_count, is_list, malformed

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZES = (
    "in_channels",
    "out_channels",
    "groups",
    "in_features",
    "out_features",
    "num_features",
    "num_channels",
    "num_parameters",
    "normalized_shape",
)
"""Attributes of torch's layers that say how wide they are. Nothing else is ever set from a record."""


def slices_of(module: nn.Module, cut: Callable[[nn.Module], None]) -> dict[str, Json]:
    """Which rows and columns of every tensor `cut` keeps, whatever it does to find them.

    Every entry of every tensor is replaced by its own position, so that after `cut` the tensors say themselves where
    they came from.

    Args:
        module: used up.
        cut: drops channels of the module's layers, in place.

    Raises:
        IncompatibleStep: `cut` did something else than leave out rows and columns.
    """
    shapes = {name: tuple(value.shape) for name, value in _tensors(module).items()}
    before = {name: _sizes(layer) for name, layer in module.named_modules()}
    _label(module)
    cut(module)
    keys: dict[tuple[int, ...], str] = {}
    tensors: dict[str, Json] = {}
    for name, value in _tensors(module).items():
        dims = _kept(name, value, shapes[name])
        if dims:
            tensors[name] = {
                str(dim): keys.setdefault(kept, str(len(keys))) for dim, kept in dims.items()
            }
    layers: dict[str, Json] = {
        name: changed
        for name, layer in module.named_modules()
        if (changed := {k: v for k, v in _sizes(layer).items() if before[name].get(k) != v})
    }
    return {
        "keep": {key: list(kept) for kept, key in keys.items()},
        "tensors": tensors,
        "layers": layers,
    }


@dataclass(frozen=True)
class Slices:
    """A record, read."""

    keep: Mapping[str, tuple[int, ...]]
    """The index sets, ascending, by key."""
    tensors: Mapping[str, Mapping[int, str]]
    """By tensor and dimension, the key of the indices that are left."""
    layers: Mapping[str, Mapping[str, int | list[int]]]
    """By layer, its sizes afterwards."""

    @classmethod
    def read(cls, record: Structure) -> Slices:
        """From a structure with `keep`, `tensors` and `layers`.

        Raises:
            IntegrityError: `BAD_STRUCTURE`, it is no such record.
        """
        keep = record.indices("keep")
        tensors = {
            name: _dims(name, dims, keep) for name, dims in record.mapping("tensors").items()
        }
        layers = {
            name: _recorded_sizes(name, each) for name, each in record.mapping("layers").items()
        }
        return cls(keep, tensors, layers)

    def kept(self, name: str, dim: int) -> tuple[int, ...] | None:
        """The indices that are left of a tensor along a dimension; None if all are."""
        key = self.tensors.get(name, {}).get(dim)
        return None if key is None else self.keep[key]


def _dims(name: str, dims: Json, keep: Mapping[str, object]) -> dict[int, str]:
    if not isinstance(dims, dict) or not dims:
        raise malformed(f"tensors.{name} must name dimensions", name)
    found: dict[int, str] = {}
    for dim, key in dims.items():
        if not (dim.isascii() and dim.isdecimal() and len(dim) == 1 and isinstance(key, str)):
            raise malformed(f"tensors.{name} must map dimensions to keys", name)
        if key not in keep:
            raise malformed(f"tensors.{name} names indices that are not there", name)
        found[int(dim)] = key
    return found


def _recorded_sizes(name: str, sizes: Json) -> dict[str, int | list[int]]:
    if not isinstance(sizes, dict):
        raise malformed(f"layers.{name} must be an object")
    found: dict[str, int | list[int]] = {}
    for key, size in sizes.items():
        if key not in SIZES:
            raise malformed(f"layers.{name} has no size '{key}'")
        if is_count(size):
            found[key] = size
        elif is_list(size) and all(is_count(each) for each in size):
            found[key] = [each for each in size if is_count(each)]
        else:
            raise malformed(f"layers.{name}.{key} must be a size")
    return found


def slice_network(module: nn.Module, slices: Slices) -> None:
    """Leave the recorded rows and columns of every tensor, in place; what is tied stays tied.

    Raises:
        IntegrityError: the network has no such tensor, layer or row.
    """
    from torch import Tensor, nn

    cut: dict[int, nn.Parameter] = {}
    for name in slices.tensors:
        owner, _, leaf = name.rpartition(".")
        layer = _layer(module, owner)
        value = getattr(layer, leaf, None)
        if not isinstance(value, Tensor):
            raise IntegrityError("BAD_STRUCTURE", f"the network has no tensor {name}", tensor=name)
        if not isinstance(value, nn.Parameter):
            setattr(layer, leaf, sliced(name, value, slices))
            continue
        if id(value) not in cut:
            kept = sliced(name, value.detach(), slices)
            cut[id(value)] = nn.Parameter(kept, requires_grad=value.requires_grad)
            cut[id(cut[id(value)])] = cut[id(value)]
        setattr(layer, leaf, cut[id(value)])
    for name, sizes in slices.layers.items():
        layer = _layer(module, name)
        for key, size in sizes.items():
            if not hasattr(layer, key):
                raise IntegrityError("BAD_STRUCTURE", f"layer {name} has no size '{key}'")
            setattr(layer, key, tuple(size) if isinstance(size, list) else size)


def sliced(name: str, tensor: Tensor, slices: Slices) -> Tensor:
    """The recorded rows and columns of one tensor, copied; a tensor that lost nothing as it is.

    Raises:
        IntegrityError: it has no such row or column.
    """
    import torch

    for dim, key in slices.tensors.get(name, {}).items():
        kept = slices.keep[key]
        if dim >= tensor.dim() or kept[-1] >= tensor.shape[dim]:
            raise IntegrityError(
                "BAD_STRUCTURE",
                f"{name} of shape {tuple(tensor.shape)} has no such rows",
                tensor=name,
            )
        tensor = tensor.index_select(dim, torch.tensor(kept, device=tensor.device))
    return tensor


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each under all of its names, but for plain numbers."""
    named = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    return {name: value for name, value in named.items() if value.dim()}


def _sizes(layer: nn.Module) -> dict[str, Json]:
    found = {key: getattr(layer, key) for key in SIZES if hasattr(layer, key)}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


def _layer(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        raise IntegrityError("BAD_STRUCTURE", f"the network has no layer {name}") from error


def _label(module: nn.Module) -> None:
    """Write its own position into every entry: exact in fp64 up to 2**53 of them."""
    import torch

    for value in _tensors(module).values():
        # through `.data`, so that whoever knows the parameter itself still does
        value.data = torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)


def _kept(name: str, labels: Tensor, shape: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """By dimension that lost something: the indices that are left."""
    import torch

    strides = [1] * len(shape)
    for dim in range(len(shape) - 2, -1, -1):
        strides[dim] = strides[dim + 1] * shape[dim + 1]
    positions = labels.detach().long()
    kept: dict[int, tuple[int, ...]] = {}
    expected = torch.zeros((), dtype=torch.long)
    for dim, size in enumerate(shape):
        others = tuple(slice(None) if each == dim else 0 for each in range(len(shape)))
        indices = positions[others] // strides[dim] % size
        expected = expected + (indices * strides[dim]).reshape(
            [-1 if each == dim else 1 for each in range(len(shape))]
        )
        if indices.tolist() != list(range(size)):
            kept[dim] = tuple(indices.tolist())
    if positions.dim() != len(shape) or not expected.equal(positions):
        raise IncompatibleStep(
            f"the channels that fall away in {name} are not whole rows and columns",
            expected="a network whose layers lose the same channels throughout",
            fix="leave `channels` out for this network",
        )
    return kept
