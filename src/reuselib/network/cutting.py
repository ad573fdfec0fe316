"""Cutting a network down: which indices of which tensors stay, as plain data, applied to any copy of the network.

A `Cut` is complete in itself. Applied to the parent's network it makes the child's; applied to a network with
arbitrary weights it makes room for the child's weights; and applied to the parent's tensors alone (`survivor`) it
says what each tensor of the child must be, without any network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, cast

from reuselib.errors import IntegrityError
from reuselib.lineage.structure import Structure

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.adapter import Json

Run: TypeAlias = tuple[str, int]
"""An axis, and how many entries of the tensor belong to each of its units."""
Dims: TypeAlias = tuple[tuple[Run, ...], ...]
"""For each dimension of a tensor the axes that lie along it, one after another; none: it stays whole."""


@dataclass(frozen=True)
class Axis:
    """Units of one kind: heads of one attention, units of one FFN, the hidden state, or the blocks of a list."""

    size: int
    """Before the cut."""
    keep: tuple[int, ...]
    """Those that stay, in ascending order."""

    @property
    def is_whole(self) -> bool:
        """Whether all stay."""
        return len(self.keep) == self.size


@dataclass(frozen=True)
class Cut:
    """What stays of a network. Names are those before the cut."""

    axes: Mapping[str, Axis] = field(default_factory=dict[str, Axis])
    tensors: Mapping[str, Dims] = field(default_factory=dict[str, Dims])
    """Tensors that lose entries."""
    blocks: Mapping[str, Axis] = field(default_factory=dict[str, Axis])
    """Lists that lose blocks, by name."""

    def to_json(self) -> dict[str, Json]:
        """As manifests hold it; `of_json` reads it back."""
        return {
            "axes": {name: _axis_json(axis) for name, axis in self.axes.items()},
            "tensors": {
                name: [[[axis, width] for axis, width in runs] for runs in dims]
                for name, dims in self.tensors.items()
            },
            "blocks": {name: _axis_json(axis) for name, axis in self.blocks.items()},
        }

    @classmethod
    def of_json(cls, value: Json) -> Cut:
        """Read what `to_json` gave.

        Raises:
            IntegrityError: it is no cut, such as one whose indices lie outside their axis.
        """
        try:
            Structure.read(value, ("axes", "tensors", "blocks"), where="cut")
            found = cast("dict[str, dict[str, list[list[list[str | int]]]]]", value)
            axes = {name: _axis(axis) for name, axis in found["axes"].items()}
            blocks = {name: _axis(axis) for name, axis in found["blocks"].items()}
            tensors = {
                name: tuple(tuple(_run(run, axes) for run in runs) for runs in dims)
                for name, dims in found["tensors"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _malformed(f"{type(error).__name__}: {error}") from error
        return cls(axes, tensors, blocks)

    def indices(self, name: str, dim: int) -> list[int] | None:
        """The entries of a tensor that stay along a dimension, or None if all do."""
        runs = self.tensors[name][dim]
        if all(self.axes[axis].is_whole for axis, _ in runs):
            return None
        kept: list[int] = []
        start = 0
        for axis, width in runs:
            kept += (
                start + unit * width + offset
                for unit in self.axes[axis].keep
                for offset in range(width)
            )
            start += self.axes[axis].size * width
        return kept

    def length(self, name: str, dim: int) -> int | None:
        """What a tensor must measure along a dimension before the cut, or None if that does not matter."""
        runs = self.tensors[name][dim]
        return sum(self.axes[axis].size * width for axis, width in runs) if runs else None

    def survivor(self, name: str, tensor: Tensor) -> Tensor:
        """What is left of the tensor of that name (before the cut).

        Raises:
            IntegrityError: the tensor has not the shape that the cut is for.
        """
        import torch

        if name not in self.tensors:
            return tensor
        dims = self.tensors[name]
        wanted = [self.length(name, dim) for dim in range(len(dims))]
        if tensor.dim() != len(dims) or any(
            length not in (None, size) for length, size in zip(wanted, tensor.shape, strict=True)
        ):
            raise IntegrityError(
                "BAD_STRUCTURE",
                f"{name} has shape {tuple(tensor.shape)}, but the cut is for {tuple(wanted)}",
                tensor=name,
            )
        for dim in range(len(dims)):
            kept = self.indices(name, dim)
            if kept is not None:
                tensor = tensor.index_select(dim, torch.tensor(kept, device=tensor.device))
        return tensor

    def renamed(self, name: str) -> str | None:
        """How a tensor or module is called after the cut; None if its block is dropped."""
        for stack, axis in self.blocks.items():
            index, dot, rest = name.removeprefix(f"{stack}.").partition(".")
            if name.startswith(f"{stack}.") and index.isdecimal():
                if int(index) not in axis.keep:
                    return None
                return f"{stack}.{axis.keep.index(int(index))}{dot}{rest}"
        return name


def cut(module: nn.Module, plan: Cut) -> None:
    """Apply a cut to a network, in place: tensors, lists of blocks, and the attributes that follow them.

    What is tied stays tied. The configuration is left as it is, see `network/stating.py`.

    Raises:
        IntegrityError: the cut is not for this network.
    """
    from reuselib.network.fitting import fit_attributes

    _cut_tensors(module, plan)
    for stack, axis in plan.blocks.items():
        _drop_blocks(module, stack, axis)
    fit_attributes(module)


def _cut_tensors(module: nn.Module, plan: Cut) -> None:
    import torch
    from torch import nn

    shrunk: dict[int, nn.Parameter] = {}
    for name in plan.tensors:
        owner, _, own_name = name.rpartition(".")
        try:
            old = cast("nn.Parameter", getattr(module.get_submodule(owner), own_name))
        except AttributeError:
            raise _foreign(f"the network has no tensor {name}") from None
        if id(old) not in shrunk:
            with torch.no_grad():
                new = plan.survivor(name, old).contiguous()
            shrunk[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad)
    for name, old in list(_named(module)):
        if id(old) in shrunk:
            # every place of a tied tensor gets the same new one
            owner, _, own_name = name.rpartition(".")
            setattr(module.get_submodule(owner), own_name, shrunk[id(old)])


def _drop_blocks(module: nn.Module, stack: str, axis: Axis) -> None:
    from torch import nn

    try:
        found = module.get_submodule(stack)
    except AttributeError:
        raise _foreign(f"the network has no list {stack}") from None
    blocks = list(found.children())
    if len(blocks) != axis.size:
        raise _foreign(f"{stack} has {len(blocks)} blocks, but the cut is for {axis.size}")
    owner, _, own_name = stack.rpartition(".")
    setattr(module.get_submodule(owner), own_name, nn.ModuleList(blocks[i] for i in axis.keep))


def tied_names(module: nn.Module) -> list[list[str]]:
    """Groups of names under which a network holds one and the same parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in _named(module):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    yield from module.named_parameters(remove_duplicate=False)


def _axis_json(axis: Axis) -> dict[str, Json]:
    return {"size": axis.size, "keep": list(axis.keep)}


def _axis(value: object) -> Axis:
    found = cast("dict[str, int | list[int]]", value)
    size, keep = cast("int", found["size"]), cast("Sequence[int]", found["keep"])
    if not all(type(index) is int for index in (size, *keep)) or not keep:
        raise ValueError("an axis needs a size and indices that stay")
    if sorted(set(keep)) != list(keep) or keep[0] < 0 or keep[-1] >= size:
        raise ValueError(f"indices must ascend from 0 to below {size}")
    return Axis(size, tuple(keep))


def _run(value: Sequence[str | int], axes: Mapping[str, Axis]) -> Run:
    name, width = value
    if not isinstance(name, str) or name not in axes or type(width) is not int or width < 1:
        raise ValueError(f"{value!r} is no axis and width")
    return name, width


def _malformed(detail: str) -> IntegrityError:
    return IntegrityError(
        "BAD_STRUCTURE",
        f"the manifest's structure is no cut of a network ({detail})",
        fix="get the model again; its manifest was changed or written by another program",
    )


def _foreign(detail: str) -> IntegrityError:
    return IntegrityError(
        "BAD_STRUCTURE",
        f"the recorded cut is not for this network: {detail}",
        fix="get the model again; its manifest or its config.json was changed",
    )
