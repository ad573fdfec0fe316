"""The figures in `lineage/metrics.json`: what a step changed, as it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.lineage import canonical
from reuselib.lineage.record import METRICS

if TYPE_CHECKING:
    from reuselib.adapter import Json


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured around one step. Empty where there was nothing to measure on."""

    metric: str = ""
    """The one that decides."""
    before: Mapping[str, float] = field(default_factory=dict)
    """The task's metrics of the parent, on the test rows."""
    after: Mapping[str, float] = field(default_factory=dict)
    """Those of the child, on the same rows."""
    reference: Mapping[str, float | str] = field(default_factory=dict)
    """What a simple method without a pre-trained model reaches on the same rows, with its `name`."""
    step: Mapping[str, float] = field(default_factory=dict)
    """What the adapter reported, such as `train_loss` or `drift_max_abs`."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """`num_parameters`, `num_trainable`, `num_bytes` of the child, and the step's wall time in `seconds`."""
    test: Mapping[str, Json] = field(default_factory=dict)
    """The rows it was measured on: `rows` and `digest`."""

    def to_json(self) -> dict[str, Json]:
        """As stored."""
        return asdict(self)


def read_figures(folder: Path) -> Figures:
    """The figures of a child; empty for a base."""
    path = folder / METRICS
    return Figures(**canonical.loads(path.read_bytes())) if path.exists() else Figures()
