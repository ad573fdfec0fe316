"""Rounding that looks at data: block by block, each block seeing what the rounded blocks before it give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from reuselib.calibration.statistics import LAYERS
from reuselib.calibration.streaming import Visit, stream
from reuselib.errors import IncompatibleStep
from reuselib.quantization.awq import awq, protecting_factor
from reuselib.quantization.factors import Factored, exponents, factor
from reuselib.quantization.folding import Choose, Fold, balance
from reuselib.quantization.gptq import gptq
from reuselib.quantization.replacing import matrix, replace_linear
from reuselib.quantization.rounding import Rounded, change, nearest
from reuselib.quantization.smoothing import smoothing_factor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.calibration.statistics import Statistics
    from reuselib.quantization.schemes import Scheme
    from reuselib.task import Batch, Task


@dataclass(frozen=True)
class Method:
    """What to do in each block."""

    name: str
    """`rtn`, `gptq` or `awq`."""
    smooth: float | None = None
    """How much of the inputs' range to move into the weights first."""


@dataclass
class Solved:
    """What came of it; the layers have been replaced."""

    factored: list[Factored] = field(default_factory=list["Factored"])
    changes: dict[str, float] = field(default_factory=dict[str, float])
    """By layer: norm of what rounding changed, relative to the weight's."""


def solve(
    module: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    layers: Mapping[str, Scheme],
    method: Method,
) -> Solved:
    """Replace `layers` by quantized ones, with weights chosen so that outputs on calibration rows change little.

    Args:
        module: changed in place.
        task: what it is for.
        batches: calibration rows.
        layers: scheme by name.
        method: how.

    Raises:
        TrainingError: an input of a layer is not finite.
        IncompatibleStep: no row reaches a layer, or `smooth` is given and nothing can be rescaled.
    """
    _refuse_mixed(layers, method)
    solved = Solved()
    names = [*layers]
    for visit in stream(module, task, batches, names, gram=method.name != "rtn"):
        statistics = _prepare(module, visit, layers, method, solved)
        for name, seen in statistics.items():
            layer, how = module.get_submodule(name), layers[name]
            weight = matrix(layer).clone()
            rounded = _round(weight, seen, how, method)
            solved.changes[name] = change(weight, rounded)
            replace_linear(module, name, how).fill(rounded, layer.bias)  # type: ignore[arg-type]
    if method.smooth is not None and not solved.factored:
        raise IncompatibleStep(
            "smooth has no effect: nothing before a quantized layer of this network can take a factor over",
            expected="norms or linear layers directly before the layers that are quantized",
            fix="leave `smooth` out",
        )
    return solved


def _refuse_mixed(layers: Mapping[str, Scheme], method: Method) -> None:
    grids = {each.grid for each in layers.values()}
    if method.name == "awq" and len(grids) > 1:
        raise IncompatibleStep(
            "awq rescales channels that several layers share, but `schemes` puts layers on different grids",
            expected="one scheme for all layers that are quantized",
            fix="leave the others out with `none`, or use method=gptq or rtn",
        )


def _prepare(
    module: nn.Module,
    visit: Visit,
    layers: Mapping[str, Scheme],
    method: Method,
    solved: Solved,
) -> Mapping[str, Statistics]:
    """Rescale channels where the method wants it; the statistics as they are then."""
    if method.smooth is None and method.name != "awq":
        return visit.layers
    choose: Choose
    if method.name == "awq":
        grid = layers[next(iter(visit.layers))].grid
        choose = partial(protecting_factor, grid=grid)
    else:
        choose = partial(smoothing_factor, alpha=method.smooth)  # type: ignore[arg-type]
    noted: list[tuple[int, ...]] = []
    balanced = balance(module, visit, _noting(choose, noted))
    pairs = zip(balanced.folds, noted, strict=True)
    solved.factored += [_record(module, fold, each) for fold, each in pairs]
    return balanced.layers


def _noting(choose: Choose, noted: list[tuple[int, ...]]) -> Choose:
    """The nearest factor that can be recorded, and its record."""

    def chosen(weights: Sequence[Tensor], statistics: Statistics) -> Tensor:
        noted.append(exponents(choose(weights, statistics)))
        return factor(noted[-1])

    return chosen


def _record(module: nn.Module, fold: Fold, noted: tuple[int, ...]) -> Factored:
    names = (fold.source, *fold.targets)
    kinds = {name: type(module.get_submodule(name)).__name__ for name in names}
    return Factored(
        source=fold.source,
        targets=fold.targets,
        offset=fold.offset,
        matrices=tuple(name for name in names if kinds[name] in LAYERS),
        transposed=tuple(name for name in names if kinds[name] == "Conv1D"),
        exponents=noted,
    )


def _round(weight: Tensor, seen: Statistics, how: Scheme, method: Method) -> Rounded:
    solver: Callable[..., tuple[Tensor, Tensor]] = awq if method.name == "awq" else gptq
    if method.name == "rtn" or seen.gram is None:
        return nearest(weight, how)
    return Rounded(*solver(weight, seen.gram, how.grid))
