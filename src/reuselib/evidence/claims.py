"""Claims about how good a model is, measured again on the rows that they name.

A claim is a number that somebody states: the record of a derivation states the metrics that it measured, and a model
card may state others, under `claims:` in its front matter. Both are compared with what is measured here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from reuselib.errors import Problem, RecipeError, ReuseError
from reuselib.evidence.rows import Given, dataset_digest, rows_of
from reuselib.lineage.store import Store
from reuselib.model.figures import read_figures
from reuselib.values.binding import FAILED, Binder
from reuselib.values.front_matter import CARD, read_front_matter

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.data import Splits
    from reuselib.evidence.whereabouts import Whereabouts
    from reuselib.lineage.manifest import Manifest
    from reuselib.task import Rows

_MACHINES = 1e-4
"""Of a value: how far two machines may be apart on the same rows."""
_ROUNDING = 0.01
"""Of a value: the most that rounding explains, whatever the number of places."""


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
    """How far the measured value may be from the stated one. Left out: half a unit in the last place that is stated,
    and at most a hundredth of the value."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not math.isfinite(self.value):
            problems.append(Problem("", "value", f"expected a finite number; got {self.value}"))
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            what = f"expected a number of at least 0; got {self.tolerance}"
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
    """The metrics that a derivation measured of its child, which the record states."""
    try:
        figures = read_figures(folder)
        rows = figures.test.get("rows")
    except (ReuseError, OSError) as error:
        yield _unread(f"the recorded metrics cannot be read: {error}", source="record")
        return
    digest = dataset_digest(manifest)
    for metric, value in sorted(figures.after.items()):
        if rows and _is_number(value):
            yield Claim(metric=str(metric), value=float(value), data=digest)


@dataclass
class Measurement:
    """A model on rows: opened at the first claim that needs it, and measured once a split."""

    folder: Path
    manifest: Manifest
    places: Whereabouts
    """Where the model is whose weights an adapter alone needs."""
    given: Given = None
    refusal: str = ""
    """Why the model must not be opened, if it must not."""
    _rows: Splits | str | None = None
    _found: dict[str, tuple[dict[str, float], dict[str, tuple[float, float]]] | str] = field(
        default_factory=dict[str, "tuple[dict[str, float], dict[str, tuple[float, float]]] | str"]
    )

    def check(self, claim: Claim, source: Literal["card", "record"]) -> CheckedClaim:
        """Measure one claim again."""
        reason, measured, span = self._check(claim)
        return CheckedClaim(
            metric=claim.metric,
            value=claim.value,
            source=source,
            split=claim.split,
            data=claim.data,
            tolerance=claim.allowance,
            measured=measured,
            interval=span,
            reason=reason,
        )

    def _check(self, claim: Claim) -> tuple[str, float | None, tuple[float, float] | None]:
        if self.refusal:
            return self.refusal, None, None
        splits = self._splits()
        if isinstance(splits, str):
            return splits, None, None
        if reason := self._other_rows(claim, splits):
            return reason, None, None
        if claim.split not in self._found:
            self._found[claim.split] = self._measure(getattr(splits, claim.split))
        found = self._found[claim.split]
        if isinstance(found, str):
            return found, None, None
        metrics, spans = found
        if claim.metric not in metrics:
            known = ", ".join(sorted(metrics))
            return f"{claim.metric!r} is no metric of its task ({known})", None, None
        return "", metrics[claim.metric], spans.get(claim.metric)

    def _splits(self) -> Splits | str:
        if self._rows is None:
            try:
                self._rows = rows_of(self.manifest, self.given)
            except ReuseError as error:
                self._rows = error.what
        return self._rows

    def _other_rows(self, claim: Claim, splits: Splits) -> str:
        """Why these rows are not those of the claim; empty if they are."""
        known = [
            name for name in ("train", "validation", "test") if getattr(splits, name) is not None
        ]
        if claim.split not in known:
            return f"there is no split {claim.split!r} among the rows at hand ({', '.join(known)})"
        facts: Any = splits.facts["splits"]
        wanted = claim.data or dataset_digest(self.manifest)
        if wanted and wanted not in (splits.digest, facts[claim.split]["digest"]):
            return f"it is about other rows than those at hand (rowsHash1 {splits.digest})"
        return ""

    def _measure(self, rows: Rows) -> tuple[dict[str, float], dict[str, tuple[float, float]]] | str:
        from reuselib.measure.bootstrap import intervals, resampled
        from reuselib.model import Model
        from reuselib.training.evaluate import observe

        try:
            with TemporaryDirectory() as place:
                model = Model.load(self.folder, store=self._around(Path(place)))
                task = model.task
                examples = task.encode(rows, model.processor)
                observed = observe(model.module, examples, task, model.processor)
                return task.metrics(observed), intervals(resampled(task, observed))
        except ReuseError as error:
            return f"it cannot be opened and measured: {error.what}"

    def _around(self, place: Path) -> Path:
        """A store of its own that knows the models which this one needs: looking at a model leaves no trace."""
        store, internal = Store(place), self.manifest.definition.internal
        known = {digests.dir_hash: folder for folder, digests in self.places.named.items()}
        for digest in internal.requires if internal else ():
            folder = known.get(digest) or self.places.store.locate(digest)
            if folder is not None:
                store.remember_root(digest, folder)
        return place


def check_claims(measurement: Measurement) -> tuple[CheckedClaim, ...]:
    """Every claim on the card and in the record, those of the card first."""
    folder, manifest = measurement.folder, measurement.manifest
    stated: Sequence[tuple[Literal["card", "record"], Iterator[Claim | CheckedClaim]]] = (
        ("card", carded_claims(folder)),
        ("record", recorded_claims(folder, manifest)),
    )
    return tuple(
        measurement.check(each, source) if isinstance(each, Claim) else each
        for source, claims in stated
        for each in claims
    )


def _unread(
    reason: str, metric: str = "", *, source: Literal["card", "record"] = "card"
) -> CheckedClaim:
    return CheckedClaim(metric=metric or "?", value=None, source=source, reason=reason)


def _is_number(value: object) -> bool:
    """A stranger's record may hold anything."""
    return isinstance(value, int | float) and math.isfinite(value)


def _last_place(value: float) -> float:
    """The unit in the last decimal place that a number is stated with: 0.01 for 0.95."""
    digits, _, exponent = repr(value).partition("e")
    _, _, places = digits.partition(".")
    return 10.0 ** (int(exponent or 0) - (len(places) if places != "0" else 0))
