"""The figures in `lineage/metrics.json`: what a step changed, as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.record import METRICS

if TYPE_CHECKING:
    from reuselib.adapter import Json


_NUMBERS = ("before", "after", "quality", "quality_before", "step")
"""Figures that map names to numbers only."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured around one step. Empty where there was nothing to measure on.

    A time is in milliseconds, or the word `unstable` where the machine was too busy to tell.
    """

    metric: str = ""
    """The one that decides."""
    before: Mapping[str, float] = field(default_factory=dict)
    """The task's metrics of the parent, on the test rows."""
    after: Mapping[str, float] = field(default_factory=dict)
    """Those of the child, on the same rows."""
    quality_before: Mapping[str, float] = field(default_factory=dict)
    """Of the parent, where they have a meaning: `ece`, the expected calibration error; `worst_class` and `worst_slice`,
    the lowest share of right answers of any class and of any part of the rows (or the highest loss)."""
    quality: Mapping[str, float] = field(default_factory=dict)
    """Those of the child."""
    intervals: Mapping[str, Json] = field(default_factory=dict)
    """95 % intervals `[low, high]` over other draws of the rows, by metric: `before`, `after`, and of the `change`."""
    reference: Mapping[str, float | str] = field(default_factory=dict)
    """What a simple method without a pre-trained model reaches on the same rows, with its `name`."""
    step: Mapping[str, float] = field(default_factory=dict)
    """What the adapter reported, such as `train_loss` or `drift_max_abs`."""
    cost: Mapping[str, float | str] = field(default_factory=dict)
    """Of the child: `num_parameters`, `num_trainable`, `num_bytes`, `flops` (of one row), `latency_p50`, `latency_p95`
    (one row), `latency_p50_batch32`, `latency_p95_batch32`. Of the step: `peak_bytes`, wall time in `seconds`."""
    cost_before: Mapping[str, float | str] = field(default_factory=dict)
    """The first of these of the parent, measured in the same run."""
    drift: Mapping[str, Json] = field(default_factory=dict)
    """How the child answers differently from its parent, see `measure.drift.drift`."""
    origin: Mapping[str, Json] = field(default_factory=dict)
    """The model before it was compressed, or the base of the recipe if nothing compresses: `name`, `dir_hash`,
    `metrics`, `cost`; and against it `drift`, `changes` and `speedup`, with whether times were taken `in_turns`. If it
    could not be had, only `missing`: why."""
    test: Mapping[str, Json] = field(default_factory=dict)
    """The rows it was measured on: `rows` and `digest`."""
    protocol: Mapping[str, Json] = field(default_factory=dict)
    """How times were taken: threads, calls, shapes. If there were rows and nothing could be measured, only `missing`:
    why."""

    def to_json(self) -> dict[str, Json]:
        """As stored."""
        return asdict(self)

    def flat(self) -> dict[str, float | str]:
        """Every figure of the child by the one name that gates and tables use."""
        drift, origin = self.drift, self._of_origin("drift")
        return {
            **{f"step_{name}": value for name, value in self.step.items()},
            **self.cost,
            **self.quality,
            **self.after,
            **{name: value for name, value in drift.items() if isinstance(value, int | float)},
            **{
                f"origin_{name}": value
                for name in ("agreement", "kl", "loss_change")
                if isinstance(value := origin.get(name), int | float)
            },
            **self._of_origin("speedup"),
        }

    def flat_origin(self) -> dict[str, float | str]:
        """The origin's figures, by the same names."""
        return {**self._of_origin("cost"), **self._of_origin("metrics")}

    def ratios(self) -> dict[str, float | str]:
        """Child over origin, of times that were taken in turns: steadier than a ratio of two times."""
        found: dict[str, float | str] = {}
        for name, value in self._of_origin("speedup").items():
            time = name.replace("speedup", "latency_p50")
            found[time] = value if isinstance(value, str) else 1 / value
        return found

    def _of_origin(self, name: str) -> dict[str, Any]:
        value = self.origin.get(name)
        return value if isinstance(value, dict) else {}


def read_figures(folder: Path) -> Figures:
    """The figures of a child; empty for a base.

    Raises:
        IntegrityError: what is there is not in the form that `to_json` gives. Strangers write this file too.
    """
    path = folder / METRICS
    if not path.exists():
        return Figures()
    value = canonical.loads(path.read_bytes(), path=METRICS)
    kinds: dict[str, Any] = Figures().to_json()
    if not isinstance(value, dict) or not value.keys() <= kinds.keys():
        raise _refused("it is no mapping of known figures")
    for name, found in value.items():
        if not isinstance(found, type(kinds[name])):
            raise _refused(f"{name!r} is a {type(found).__name__}")
        if name in _NUMBERS and not all(map(_is_number, found.values())):
            raise _refused(f"{name!r} holds more than numbers")
    return Figures(**value)


def _refused(why: str) -> IntegrityError:
    return IntegrityError("BAD_MANIFEST", f"{METRICS}: {why}", path=METRICS)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
