"""The claims about a model, held against what it answers here on the rows that they name."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from reuselib.errors import ReuseError
from reuselib.evidence.claims import (
    COUNTS,
    CheckedClaim,
    Claim,
    carded_claims,
    recorded_claims,
    span_ends,
)
from reuselib.evidence.rows import Given, dataset, dataset_digest, rows_of
from reuselib.lineage.store import Store

if TYPE_CHECKING:
    from reuselib.data import Splits
    from reuselib.evidence.whereabouts import Whereabouts
    from reuselib.lineage.manifest import Manifest
    from reuselib.model import Model
    from reuselib.task import Rows


@dataclass(frozen=True)
class _Found:
    """A model on one split."""

    metrics: Mapping[str, float]
    """Those of the task."""
    others: Mapping[str, float]
    """Quality, costs and ends of intervals, by the names that claims about them have."""
    spans: Mapping[str, tuple[float, float]]


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
    _found: dict[str, _Found | str] = field(default_factory=dict[str, "_Found | str"])

    def check(self, claim: Claim, source: Literal["card", "record"]) -> CheckedClaim:
        """Measure one claim again."""
        found = self._on(claim)
        measured, span, reason, is_void = None, None, "", False
        if isinstance(found, str):
            reason = found
        elif claim.metric in found.metrics:
            measured, span = found.metrics[claim.metric], found.spans.get(claim.metric)
        elif claim.metric in found.others:
            measured = found.others[claim.metric]
        else:
            known = ", ".join(sorted(found.metrics))
            reason, is_void = f"{claim.metric[:80]!r} is no metric of its task ({known})", True
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
            is_void=is_void,
        )

    def _on(self, claim: Claim) -> _Found | str:
        """The model on the rows of a claim, or why that cannot be had."""
        if self.refusal:
            return self.refusal
        if claim.metric in COUNTS and dataset(self.manifest) is None:
            return self._counted
        splits = self._splits()
        if isinstance(splits, str):
            return splits
        if reason := self._other_rows(claim, splits):
            return reason
        if claim.split not in self._found:
            self._found[claim.split] = self._measure(getattr(splits, claim.split), splits.columns)
        return self._found[claim.split]

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

    @cached_property
    def _counted(self) -> _Found | str:
        """What can be counted without rows."""
        from reuselib.measure.probe import measured_cost

        try:
            with self._opened() as model:
                return _Found({}, _numbers(measured_cost(model.module, self.folder)), {})
        except ReuseError as error:
            return f"it cannot be opened: {error.what}"

    def _measure(self, rows: Rows, columns: Sequence[str]) -> _Found | str:
        from reuselib.measure.bootstrap import intervals
        from reuselib.measure.probe import Probe

        try:
            with self._opened() as model:
                probe = Probe(
                    task=model.task,
                    processor=model.processor,
                    rows=rows,
                    columns=columns,
                    examples=model.task.encode(rows, model.processor),
                )
                seen = probe.measure(model.module, self.folder)
        except ReuseError as error:
            return f"it cannot be opened and measured: {error.what}"
        spans = intervals(seen.draws)
        others = {**seen.quality, **_numbers(seen.cost), **span_ends(spans)}
        return _Found(seen.metrics, others, spans)

    @contextmanager
    def _opened(self) -> Generator[Model]:
        """The model, over a store of its own that knows what it needs: looking at a model leaves no trace."""
        from reuselib.model import Model

        internal = self.manifest.definition.internal
        with TemporaryDirectory() as place:
            store = Store(Path(place))
            for digest in internal.requires if internal else ():
                if (folder := self.places.place(digest)) is not None:
                    store.remember_root(digest, folder)
            yield Model.load(self.folder, store=store.path)


def _numbers(cost: Mapping[str, float | str]) -> dict[str, float]:
    """Without times of a machine that was too busy to tell."""
    return {name: float(value) for name, value in cost.items() if not isinstance(value, str)}


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
