"""Which layers lose single weights, and what forbids it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from reuselib.errors import IncompatibleStep
from reuselib.network.layers import is_transposed
from reuselib.network.parts import parts, within
from reuselib.network.selectors import select_modules
from reuselib.pruning.masks import Quota
from reuselib.pruning.sparse import out_by_in

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYERS = ("Linear", "NonDynamicallyQuantizableLinear", "Conv1D", "Conv1d", "Conv2d", "Conv3d")
"""Types whose weight is [out, in, ...], but for GPT-2's Conv1D, which keeps it as [in, out]."""


def chosen(
    module: nn.Module, selectors: Sequence[str] | None, quota: Quota, *, head: Sequence[str]
) -> dict[str, nn.Module]:
    """The layers that lose weights, by name; never those of the head.

    Args:
        module: the network.
        selectors: name layers; None: the linear layers and ungrouped convolutions of the blocks.
        quota: what each of them loses.
        head: names of the parts that make up the head.

    Raises:
        IncompatibleStep: there is none, or one of them is of another type, or the pattern does not divide its inputs.
    """
    names = _selected(module, selectors, head) if selectors else _default(module, head)
    layers = {name: module.get_submodule(name) for name in names}
    if not layers:
        raise IncompatibleStep(
            f"target_modules={selectors and list(selectors)} matches no layer besides the head",
            expected="linear layers or convolutions of the backbone",
            fix="name layers, such as `op:Linear`",
        )
    for name, layer in layers.items():
        _require_fit(name, layer, quota)
    return layers


def refuse_new(layers: Iterable[str], fresh: Collection[str]) -> None:
    """Refuse layers with a weight among those that the base does not hold."""
    new = next((name for name in layers if f"{name}.weight" in fresh), "")
    if new:
        raise IncompatibleStep(
            f"{new} is newly initialised (the base does not hold it), so its weights say nothing yet",
            expected="layers that were trained",
            fix="put a `finetune` step before it, or leave that layer out with `target_modules`",
        )


def require_finite(name: str, weight: Tensor) -> None:
    """Refuse a weight with values that have no order."""
    if not weight.isfinite().all():
        raise IncompatibleStep(
            f"the weights of {name} are not all finite, so they have no order",
            expected="finite weights",
            fix="start from a sound model",
        )


def _selected(module: nn.Module, selectors: Sequence[str], head: Sequence[str]) -> list[str]:
    found = select_modules(module, selectors, head=head)
    inside_head = set(within(found, head))
    return [name for name in found if name not in inside_head]


def _default(module: nn.Module, head: Sequence[str]) -> list[str]:
    """Names of the linear layers and ungrouped convolutions in the blocks, or in a backbone without blocks."""
    network = parts(module, head)
    inside = frozenset().union(*network.blocks) or network.backbone
    # of a tied weight only the lender is listed, and it must not be a layer that looks rows up
    return [
        name
        for name, layer in module.named_modules()
        if type(layer).__name__ in LAYERS
        and f"{name}.weight" in inside
        and getattr(layer, "groups", 1) == 1
    ]


def _require_fit(name: str, layer: nn.Module, quota: Quota) -> None:
    if type(layer).__name__ not in LAYERS:
        raise IncompatibleStep(
            f"target_modules selects {name}, which is of type {type(layer).__name__}",
            expected=f"layers of type {', '.join(LAYERS)}",
            fix="narrow target_modules, for instance with `op:Linear & block[:]`",
        )
    matrix = out_by_in(layer.weight, transposed=is_transposed(layer))  # type: ignore[arg-type]
    if quota.group is not None and matrix.shape[1] % (size := quota.group[1]):
        raise IncompatibleStep(
            f"pattern='{quota.pattern}' needs groups of {size}, but {name} has {matrix.shape[1]} inputs",
            expected=f"layers whose number of inputs is a multiple of {size}",
            fix="leave that layer out with `target_modules`, or use `sparsity`",
        )
