"""What came of making a model again: how near it came to the recorded one, and where the two part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import comb
from typing import TYPE_CHECKING, Literal, TypeAlias

from reuselib.lineage.report import Problem
from reuselib.lineage.tiers import Tier

if TYPE_CHECKING:
    from reuselib.adapter import Json

Verdict: TypeAlias = Literal[
    "bit-equal",
    "within tolerance",
    "metric-equal",
    "as recorded",
    "differs",
    "cannot tell",
    "cannot check",
]
"""`bit-equal`: the same `tensorHash1`. `within tolerance`: not that, but every weight is near the recorded one, and
something about this machine explains the difference; or the weights are the same, and files name other versions of the
software that wrote them. `metric-equal`: the weights differ and that is explained, but measured on the same rows, both
models are as good. `as recorded`: every digest of a window is that of the trail. `differs`: the record is contradicted.
`cannot tell`: something differs that this machine or its software may explain. `cannot check`: something is not at
hand."""


@dataclass(frozen=True, kw_only=True)
class WeightsCompared:
    """The weights that were made against those that are recorded."""

    num_tensors: int
    num_equal: int
    first: str = ""
    """The first tensor, by name, that is not bit for bit the same."""
    worst: str = ""
    """The tensor that is furthest away, for its size and its type."""
    max_abs: float | None = None
    """Of that tensor, the largest difference of a value; None if its type or shape differs."""
    tolerance: float | None = None
    """What is allowed there."""
    near: bool = True
    """Whether every tensor is within its tolerance."""


@dataclass(frozen=True, kw_only=True)
class WindowCompared:
    """A part of a training done again."""

    which: str
    asked: int
    """How many steps were asked for."""
    start: int
    """The step that it went on after; 0 for the beginning."""
    stop: int
    num_steps: int
    """Of the whole training."""
    num_compared: int
    """Digests that were compared."""
    num_seen: int
    """Different rows that were seen in it."""
    num_rows: int
    """Of the training split."""

    @property
    def share_of_steps(self) -> float:
        """Steps that were done again, of all."""
        return (self.stop - self.start) / self.num_steps

    @property
    def share_of_rows(self) -> float:
        """Rows that were seen, of all."""
        return self.num_seen / self.num_rows

    def notices(self, num_changed: int) -> float:
        """How probable it is that a training on other rows is noticed, if so many rows at random were changed."""
        unseen = self.num_rows - self.num_seen
        return 1.0 - comb(unseen, num_changed) / comb(self.num_rows, num_changed)

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        few = max(1, self.num_rows // 100)
        return {
            **asdict(self),
            "share_of_steps": self.share_of_steps,
            "share_of_rows": self.share_of_rows,
            "notices_one_row": self.notices(1),
            "notices_one_percent": self.notices(few),
        }


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of making the last step of a model again, or a part of it."""

    name: str
    dir_hash: str
    relation: str
    adapter: str
    verdict: Verdict
    why: str = ""
    """If it is not bit-equal and not as recorded."""
    problems: tuple[Problem, ...] = ()
    """What contradicts the record."""
    weights: WeightsCompared | None = None
    """None if no whole model was made."""
    files: tuple[str, ...] = ()
    """Other files of the payload that came out differently: with any of them it is never `bit-equal`."""
    first_step: int | None = None
    """The first step whose state is not the recorded one, among those looked at."""
    last_equal_step: int | None = None
    """The last one before it whose state is."""
    window: WindowCompared | None = None
    """None if the whole step was made again."""
    metrics: Mapping[str, tuple[float, float]] | None = None
    """By name: of the model in the folder, and of the one that was made again, both measured now. Only if the weights
    differ."""
    environment: tuple[str, ...] = ()
    """How this machine and its software differ from those recorded."""
    history: tuple[tuple[str, str, Tier], ...] = ()
    """The steps before, which were not made again: name, relation, and what they are worth by the record alone."""
    unchecked: tuple[str, ...] = ()
    """What a reader might believe was checked, and was not."""

    @property
    def ok(self) -> bool:
        """Whether what was asked for was reproduced."""
        return self.verdict in ("bit-equal", "within tolerance", "metric-equal", "as recorded")

    @property
    def tier(self) -> Tier:
        """What the step is worth now: `replayed` only if the whole of it gave the same bits."""
        if self.verdict == "bit-equal":
            return "replayed"
        return "broken" if self.verdict == "differs" else "recorded"

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "tier": self.tier,
            "why": self.why,
            "problems": [vars(problem) for problem in self.problems],
            "name": self.name,
            "dirHash": self.dir_hash,
            "relation": self.relation,
            "adapter": self.adapter,
            "weights": None if self.weights is None else asdict(self.weights),
            "files": list(self.files),
            "firstStep": self.first_step,
            "lastEqualStep": self.last_equal_step,
            "window": None if self.window is None else self.window.to_json(),
            "metrics": None
            if self.metrics is None
            else {name: list(both) for name, both in self.metrics.items()},
            "environment": list(self.environment),
            "history": [list(each) for each in self.history],
            "unchecked": list(self.unchecked),
        }
