"""Claims about how good a model is.

A claim is a number that somebody states: the record of a derivation states the figures that it measured, and a model
card may state others, under `claims:` in its front matter. `evidence.measurement` compares both with what it measures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from reuselib.errors import Problem, RecipeError, ReuseError
from reuselib.evidence.rows import dataset, dataset_digest
from reuselib.model.figures import Figures, read_figures
from reuselib.values.binding import FAILED, Binder
from reuselib.values.front_matter import CARD, read_front_matter

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.manifest import Manifest

_MACHINES = 1e-4
"""Of a value: how far two machines may be apart on the same rows."""
_ROUNDING = 0.01
"""Of a value: the most that rounding explains, whatever the number of places."""
_WIDEST = 0.02
"""Of a value, or by itself below one: with a wider tolerance a number says so little that anything would hold."""
COUNTS = ("num_parameters", "num_bytes", "flops")
"""Costs of a model that do not depend on the machine."""
QUALITY = ("ece", "worst_class", "worst_slice")
"""See `Figures.quality`."""
_ENDS = (" interval, low end", " interval, high end")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One number that is stated of a model."""

    metric: str
    """Name of a metric of the model's task, such as `accuracy`."""
    value: float
    data: str = ""
    """`rowsHash1` of the rows, all splits together or the named one alone. Left out: the rows of the record."""
    split: str = "test"
    tolerance: float | None = None
    """How far the measured value may be from the stated one: at most 0.02, or that share of a value above one. Left
    out: half a unit in the last place that is stated, and at most a hundredth of the value."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not math.isfinite(self.value):
            problems.append(Problem("", "value", f"expected a finite number; got {self.value}"))
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            what = f"expected a number of at least 0; got {self.tolerance}"
            problems.append(Problem("", "tolerance", what))
        elif self.tolerance is not None and self.tolerance > widest(self.value):
            what = f"at most {widest(self.value):.6g} is left to a claim of {self.value:.6g}; got {self.tolerance:.6g}"
            problems.append(Problem("", "tolerance", what))
        if self.data and not re.fullmatch("[0-9a-f]{64}", self.data):
            what = f"expected 64 lower-case hex digits; got {self.data[:80]!r}"
            problems.append(Problem("", "data", what))
        if problems:
            raise RecipeError(problems)

    @property
    def allowance(self) -> float:
        """The tolerance, written out."""
        if self.tolerance is not None:
            return self.tolerance
        rounding = min(_last_place(self.value) / 2, _ROUNDING * abs(self.value))
        return max(rounding, _MACHINES * abs(self.value), 1e-9)


@dataclass(frozen=True, kw_only=True)
class CheckedClaim:
    """A claim, and what came of measuring it again."""

    metric: str
    value: float | None
    """None if it could not be read."""
    source: Literal["card", "record"]
    """Who states it: the model card, or the record that `lineage/` holds."""
    split: str = "test"
    data: str = ""
    tolerance: float | None = None
    measured: float | None = None
    interval: tuple[float, float] | None = None
    """95 % of it over other draws of the rows: how much the number says about rows that nobody has seen."""
    reason: str = ""
    """Why it could not be checked."""
    is_void: bool = False
    """Whether nobody could ever check it: it is malformed, or its metric is none of the task."""

    @property
    def is_metric(self) -> bool:
        """Whether it is about a metric of the task, rather than a figure that goes with one."""
        return self.metric not in (*COUNTS, *QUALITY) and not self.metric.endswith(_ENDS)

    @property
    def holds(self) -> bool | None:
        """None if it could not be checked."""
        if self.measured is None or self.value is None or self.tolerance is None:
            return None
        # beyond the last bits, in which decimal fractions differ from what they stand for
        return abs(self.measured - self.value) <= self.tolerance * (1 + 1e-9) + 1e-12

    @property
    def verdict(self) -> str:
        """`holds`, `off by` so much, or `cannot check, because` of something."""
        if self.holds is None:
            return f"cannot check, because {self.reason}"
        if self.holds or self.value is None or self.measured is None:
            return "holds"
        return f"off by {abs(self.value - self.measured):.4g}: {self.measured:.6g} was measured"

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        span: Json = [*self.interval] if self.interval else None
        return {**asdict(self), "interval": span, "holds": self.holds, "verdict": self.verdict}


def carded_claims(folder: Path) -> Iterator[Claim | CheckedClaim]:
    """The claims on a folder's model card; one that cannot be read comes as a claim that cannot be checked."""
    try:
        document = read_front_matter(folder)
    except RecipeError as error:
        yield _unread(f"{CARD} cannot be read: {error.problems[0]}")
        return
    front = document.value if document else None
    stated = front.get("claims") if isinstance(front, dict) else None
    if stated is None or document is None:
        return
    if not isinstance(stated, list):
        yield _unread("`claims` on the card is not a list")
        return
    broken = [each for each in document.problems if each.key.startswith("claims")]
    for index, value in enumerate(stated):
        path = ("claims", index)
        binder = Binder(document, {})
        claim = binder.bind(Claim, value, path)
        own = [each for each in broken if each.key.startswith(f"claims[{index}]")]
        if claim is FAILED or own:
            named = value.get("metric") if isinstance(value, dict) else ""
            problem = [*own, *binder.problems][0]
            yield _unread(f"it is malformed: {problem}", named if isinstance(named, str) else "")
        else:
            yield claim


def recorded_claims(folder: Path, manifest: Manifest) -> Iterator[Claim | CheckedClaim]:
    """The figures that a derivation measured of its child, which the record states, but for those of a machine."""
    try:
        figures = read_figures(folder)
    except ReuseError as error:
        yield _unread(f"the recorded figures cannot be read: {error.what}", source="record")
        return
    except OSError as error:
        yield _unread(f"the recorded figures cannot be read: {error.strerror}", source="record")
        return
    digest = dataset_digest(manifest)
    stated = {**figures.quality, **_ends(figures.intervals)}
    if (figures.after or stated) and (odd := _odd_rows(figures, manifest)):
        for metric in sorted(figures.after) or sorted(stated):
            yield _unread(odd, metric, source="record")
    else:
        for metric, value in sorted(figures.after.items()):
            yield from _recorded(metric, value, digest)
        for metric, value in stated.items():
            # a few rows that another machine judges otherwise move these by more than the last place
            yield from _recorded(metric, value, digest, widest)
    for metric in COUNTS:
        if metric in figures.cost:
            # a library may count an operation in another way; what is stored is stored
            allowed = widest if metric == "flops" else _exact
            yield from _recorded(metric, figures.cost[metric], digest, allowed)


def unmeasured(folder: Path) -> tuple[str, ...]:
    """The figures of a record that nothing here measures again, in words."""
    try:
        figures = read_figures(folder)
    except (ReuseError, OSError):
        return ()
    told = {
        "those of the parent": figures.before,
        "the comparison with the parent": figures.drift,
        "the comparison with the origin": figures.origin,
        "the simple reference": figures.reference,
        "what the adapter reported": figures.step,
        "times and memory": figures.cost.keys() - {*COUNTS},
    }
    return tuple(name for name, value in told.items() if value)


def widest(value: float) -> float:
    """The widest tolerance that a claim may have."""
    return _WIDEST * max(1.0, abs(value))


def _exact(_: float) -> float:
    return 0.0


def _recorded(
    metric: str,
    value: object,
    digest: str,
    tolerance: Callable[[float], float] | None = None,
) -> Iterator[Claim | CheckedClaim]:
    """One figure of a record; a stranger's may hold anything."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise OverflowError
        number = float(value)
        allowed = tolerance(number) if tolerance else None
        yield Claim(metric=metric, value=number, data=digest, tolerance=allowed)
    except (OverflowError, RecipeError):
        yield _unread(f"{str(value)[:80]!r} is no finite number", metric, source="record")


def _ends(intervals: Mapping[str, Any]) -> dict[str, object]:
    """Both ends of each interval of the child; what is no pair comes as it is, for `_recorded` to refuse."""
    after = intervals.get("after", {})
    if not isinstance(after, dict):
        return {f"?{_ENDS[0]}": after}
    told = cast("dict[str, list[Any] | float]", after)
    found: dict[str, object] = {}
    for metric, span in sorted(told.items()):
        pair: list[Any] = [span, span]
        if isinstance(span, list) and len(span) == 2:
            pair = span
        found |= {f"{metric}{end}": value for end, value in zip(_ENDS, pair, strict=True)}
    return found


def span_ends(spans: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Measured intervals, by the names that claims about them have."""
    return {
        f"{metric}{end}": value
        for metric, span in spans.items()
        for end, value in zip(_ENDS, span, strict=True)
    }


def _odd_rows(figures: Figures, manifest: Manifest) -> str:
    """In what the rows that figures are of are not those of the manifest; empty if they are."""
    rows = figures.test.get("rows")
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        return f"the record states it of {str(rows)[:40]} rows"
    found = dataset(manifest)
    if found is None:
        return "the record names no rows that it was measured on"
    splits = found.annotations.get("splits")
    known = splits.get("test") if isinstance(splits, dict) else None
    if known != figures.test:
        return "the record states it of other rows than those that the manifest names"
    return ""


def _unread(
    reason: str, metric: str = "", *, source: Literal["card", "record"] = "card"
) -> CheckedClaim:
    """A claim that says nothing which could be checked."""
    return CheckedClaim(
        metric=metric or "?", value=None, source=source, reason=reason, is_void=True
    )


def _last_place(value: float) -> float:
    """The unit in the last decimal place that a number is stated with: 0.01 for 0.95."""
    digits, _, exponent = repr(value).partition("e")
    _, _, places = digits.partition(".")
    return 10.0 ** (int(exponent or 0) - (len(places) if places != "0" else 0))
