"""Divide the inputs of layers by a factor a channel, and let the layer before them take that over for nothing.

A norm can, and so can a linear layer if nothing between the two minds the scale: the values of attention, the part of
a gated network that is not activated, what goes through a ReLU. Which ones can is not looked up but tried: a fold
is used only if the block's outputs stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reuselib.calibration.statistics import LAYERS, Statistics, as_matrix

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.calibration.streaming import Visit

TOLERANCE = 1e-5
"""Allowed change of an output, relative to the largest. A true fold by powers of two changes nothing but for the
norms of Gemma, which add 1 to their weight; a false one changes outputs by orders of magnitude more."""


@dataclass(frozen=True)
class Fold:
    """A layer before, and the layers after it that see its outputs and nothing else."""

    source: str
    """Name of a norm or of a linear layer."""
    targets: tuple[str, ...]
    """Names of all layers whose inputs are divided."""
    offset: bool = False
    """Whether the source multiplies by 1 + weight."""


@dataclass(frozen=True)
class Balanced:
    """What `balance` did to a block."""

    folds: tuple[Fold, ...]
    """In the order in which they were applied. The weights (and biases) of their sources and targets have changed."""
    layers: Mapping[str, Statistics]
    """Of the layers that were asked for, as they are now."""


Choose = Callable[[Sequence["Tensor"], Statistics], "Tensor"]
"""Maps the weights of layers with a common input, [out, in] each, and its statistics to a factor: positive, [in]."""


def balance(module: nn.Module, visit: Visit, choose: Choose) -> Balanced:
    """Divide the inputs of a block's layers by what `choose` says, where a layer before can take it over.

    The block computes what it computed before, up to rounding; layers for which nothing can take it over are left
    as they are.
    """
    import torch

    layers, folds = dict(visit.layers), []
    with torch.no_grad():
        for fold in find_folds(module, visit):
            asked = [name for name in fold.targets if name in layers]
            weights = [as_matrix(module.get_submodule(name)) for name in fold.targets]
            factor = choose(weights, layers[asked[0]])
            apply_fold(module, fold, factor)
            divided = layers[asked[0]].divided(factor)
            layers.update(dict.fromkeys(asked, divided))
            folds.append(fold)
    return Balanced(tuple(folds), layers)


def apply_fold(module: nn.Module, fold: Fold, factor: Tensor) -> None:
    """Divide what the source gives by `factor`, [in], and multiply the targets' columns by it, in place."""
    source = module.get_submodule(fold.source)
    bias = getattr(source, "bias", None)
    if type(source).__name__ in LAYERS:
        as_matrix(source).div_(factor[:, None])
    elif fold.offset:
        source.weight.add_(1).div_(factor).sub_(1)  # type: ignore[union-attr,operator]
    else:
        source.weight.div_(factor)  # type: ignore[union-attr,operator]
    if bias is not None:
        bias.div_(factor)
    for name in fold.targets:
        as_matrix(module.get_submodule(name)).mul_(factor)


def find_folds(module: nn.Module, visit: Visit) -> list[Fold]:
    """The folds of a block that leave its outputs as they are; at most one for each layer that was asked for."""
    import torch

    found: list[Fold] = []
    with torch.no_grad():
        before = visit.outputs()
        settled: set[str] = set()
        for fold in _candidates(module, visit):
            if settled & set(fold.targets):
                continue
            if _is_exact(module, fold, visit, before):
                found.append(fold)
                settled.update(fold.targets)
    return found


def _is_exact(module: nn.Module, fold: Fold, visit: Visit, before: Sequence[Tensor]) -> bool:
    """Whether the block's outputs stay as they are when a factor of powers of two is folded."""
    import torch

    changed = [module.get_submodule(name) for name in (fold.source, *fold.targets)]
    kept = [(each, each.detach().clone()) for part in changed for each in part.parameters()]
    num_features = as_matrix(changed[1]).shape[1]
    factor = 2.0 ** (torch.arange(num_features) * 7 % 9 - 4)  # 1/16 to 16, no neighbours alike
    try:
        apply_fold(module, fold, factor)
        after = visit.outputs()
    finally:
        for parameter, value in kept:
            parameter.copy_(value)
    return all(_alike(old, new) for old, new in zip(before, after, strict=True))


def _alike(old: Tensor, new: Tensor) -> bool:
    if not old.is_floating_point() or not old.numel():
        return bool((old == new).all())
    return bool((new - old).abs().max() <= TOLERANCE * old.abs().max())


def _candidates(module: nn.Module, visit: Visit) -> Iterator[Fold]:
    """What might be folded, by sizes and the order of calls; norms first."""
    calls = _watch(module, visit)
    groups: dict[int, list[str]] = {}
    for name, taken, _ in calls:
        if _is_matrix(module.get_submodule(name)):
            groups.setdefault(id(taken), []).append(name)
    seen: dict[int, str] = {}
    before: list[str] = []
    for name, taken, given in calls:
        group = tuple(dict.fromkeys(groups.pop(id(taken), ())))
        if any(each in visit.layers for each in group):
            size = as_matrix(module.get_submodule(group[0])).shape[1]
            source = seen.get(id(taken))
            if source is not None and _num_outputs(module.get_submodule(source)) == size:
                yield Fold(source, group)
                if not _is_matrix(module.get_submodule(source)):
                    yield Fold(source, group, offset=True)
            for source in before:
                part = module.get_submodule(source)
                if source not in group and _is_matrix(part) and _num_outputs(part) == size:
                    yield Fold(source, group)
        seen[id(given)] = name
        before.insert(0, name)


def _watch(module: nn.Module, visit: Visit) -> list[tuple[str, Tensor, Any]]:
    """Name, input and output of each call of a layer with weights in the block."""
    calls: list[tuple[str, Tensor, Any]] = []
    parts = module.get_submodule(visit.block).named_modules(prefix=visit.block)
    handles = [
        part.register_forward_hook(
            lambda _, taken, given, name=name: (
                calls.append((name, taken[0], given)) if taken else None
            )
        )
        for name, part in parts
        if "weight" in part._parameters and part.weight is not None
    ]
    try:
        visit.outputs()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _is_matrix(part: nn.Module) -> bool:
    """Whether it is a linear layer; convolutions are left out."""
    return type(part).__name__ in LAYERS and type(part).__name__ != "Conv2d"


def _num_outputs(part: nn.Module) -> int:
    """Channels that a norm or a linear layer gives; 0 for anything else."""
    if _is_matrix(part):
        return as_matrix(part).shape[0]
    weight: Tensor = part.weight  # type: ignore[assignment]
    return len(weight) if weight.ndim == 1 else 0
