"""Gates: conditions that a recipe puts on the figures of its last child."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reuselib.catalog import nearest
from reuselib.measure.latency import UNSTABLE

if TYPE_CHECKING:
    from reuselib.task import Task

Figure = float | str
"""A number, or `unstable`."""

QUALITY = ("ece", "worst_class", "worst_slice")
COST = ("num_parameters", "num_bytes", "flops",
        "latency_p50", "latency_p95", "latency_p50_batch32", "latency_p95_batch32")  # fmt: skip
"""Figures that a model has by itself, so that those of the origin stand beside them."""
STEP = ("num_trainable", "peak_bytes", "seconds")
DRIFT = ("agreement", "kl", "loss_change", "worst_class_change", "worst_slice_change",
         "origin_agreement", "origin_kl", "origin_loss_change", "speedup", "speedup_batch32")  # fmt: skip
"""Figures of a step, or of a model against another one: they are relative already."""
OWN = "step_"
"""Before the name of a figure that the adapter reported, such as `step_train_loss`."""
LESS_IS_BETTER = frozenset({"loss", "mse", "ece", *COST, *STEP})


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A condition on one figure of the last child. Written as `figure: {bound: number}`."""

    keyed_by: ClassVar[str] = "figure"
    """The field that is written as the key."""

    figure: str
    """Name of a recorded figure, such as `accuracy`, `worst_class` or `latency_p50`."""
    min: float | None = None
    """The figure is at least this."""
    max: float | None = None
    """The figure is at most this."""
    max_drop: float | None = None
    """The figure is at most so much worse than the origin's, in its own units. Of a loss, a time or a size, more is
    worse."""
    max_ratio: float | None = None
    """The figure is at most so many times the origin's."""

    def __post_init__(self) -> None:
        if not isinstance(self.figure, str):
            raise ValueError(f"figure is {self.figure!r}; expected a name")
        if not self.bounds:
            raise ValueError("says no bound; give `min`, `max`, `max_drop` or `max_ratio`")
        for name, value in self.bounds.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}; expected a number")
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; expected a finite number")
        if self.max_ratio is not None and self.max_ratio <= 0:
            raise ValueError(f"max_ratio is {self.max_ratio}; expected more than 0")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing can pass")

    @property
    def bounds(self) -> dict[str, float]:
        """Those that are given, by name."""
        every = {name: getattr(self, name) for name in ("min", "max", "max_drop", "max_ratio")}
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one bound of a gate came to."""

    figure: str
    bound: str
    """`min`, `max`, `max_drop` or `max_ratio`."""
    limit: float
    measured: Figure | None
    """What was compared with the limit: the figure, its drop or its ratio. None if it was not recorded."""
    passed: bool
    told: str
    """The same in words."""


def names(task: Task) -> tuple[str, ...]:
    """Every figure that can be recorded for a task, but for those of adapters."""
    return tuple(dict.fromkeys((*task.metric_names, *QUALITY, *COST, *STEP, *DRIFT)))


def faults(gates: Sequence[Gate], task: Task, *, has_rows: bool) -> Iterator[tuple[int, str, str]]:
    """What is wrong with gates for that task: place in the list, figure, and why."""
    known = names(task)
    counted = {"num_parameters", "num_bytes", *STEP}
    alone = {*task.metric_names, *QUALITY, *COST}
    for index, gate in enumerate(gates):
        if gate.figure not in known and not gate.figure.startswith(OWN):
            guess = nearest(gate.figure, known)
            hint = f"did you mean `{guess}`? " if guess else ""
            yield index, gate.figure, f"no such figure; {hint}There are: {', '.join(known)}"
        elif not (has_rows or gate.figure in counted or gate.figure.startswith(OWN)):
            yield index, gate.figure, "is measured on test rows, but there is no data"
        elif gate.figure not in alone and {"max_drop", "max_ratio"} & gate.bounds.keys():
            yield (
                index,
                gate.figure,
                "is no figure that the origin has as well; use `min` or `max`",
            )


def judge(
    gates: Sequence[Gate],
    child: Mapping[str, Figure],
    origin: Mapping[str, Figure],
    ratios: Mapping[str, Figure],
    task: Task,
) -> tuple[Verdict, ...]:
    """Hold figures against gates.

    Args:
        gates: conditions.
        child: its figures by name.
        origin: those of the model before it was compressed, by the same names.
        ratios: child over origin, where both were measured in turns; otherwise it is computed.
        task: says of its metric whether more is better.
    """
    return tuple(
        _verdict(
            gate.figure, bound, limit, _measure(gate.figure, bound, child, origin, ratios, task)
        )
        for gate in gates
        for bound, limit in gate.bounds.items()
    )


def _measure(
    figure: str,
    bound: str,
    child: Mapping[str, Figure],
    origin: Mapping[str, Figure],
    ratios: Mapping[str, Figure],
    task: Task,
) -> Figure | None:
    """What is to be compared with the limit."""
    if bound == "max_ratio" and figure in ratios:
        return ratios[figure]
    value = child.get(figure)
    if bound in ("min", "max") or value is None:
        return value
    base = origin.get(figure)
    if base is None:
        return None
    if isinstance(value, str) or isinstance(base, str):
        return UNSTABLE
    if bound == "max_ratio":
        return value / base if base else math.inf
    return value - base if _less_is_better(figure, child, task) else base - value


def _less_is_better(figure: str, child: Mapping[str, Figure], task: Task) -> bool:
    if figure == "worst_slice":
        return "ece" not in child  # without right answers it is a loss
    return figure in LESS_IS_BETTER or (figure == task.metric and not task.greater_is_better)


_WORDS = {
    "min": ("", "at least"),
    "max": ("", "at most"),
    "max_drop": ("the drop of ", "at most"),
    "max_ratio": ("the ratio of ", "at most"),
}


def _verdict(figure: str, bound: str, limit: float, measured: Figure | None) -> Verdict:
    what, wanted = _WORDS[bound]
    if measured is None:
        passed, told = False, "was not measured"
    elif isinstance(measured, str):
        passed, told = False, f"is {UNSTABLE}: the machine was too busy to tell"
    else:
        passed = measured >= limit if bound == "min" else measured <= limit
        told = f"is {measured:.6g}"
    sentence = f"{what}{figure} {told}; `{bound}` wants {wanted} {limit:g}"
    return Verdict(
        figure=figure,
        bound=bound,
        limit=limit,
        measured=measured if not isinstance(measured, float) or math.isfinite(measured) else None,
        passed=passed,
        told=sentence,
    )
