"""Any models beside each other on the same rows: what `reuselib compare` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Json, ModelRef
from reuselib.data import Data
from reuselib.errors import DataError, SourceError
from reuselib.lineage.store import Store
from reuselib.measure.bootstrap import intervals
from reuselib.measure.compare import Side, compare, recordable
from reuselib.measure.probe import Probe, in_turns, times
from reuselib.model.model import recorded_task
from reuselib.model.opening import Opened, open_network
from reuselib.model.source import Pinned, resolve
from reuselib.progress import Progress, Report
from reuselib.values.named import parse_value

if TYPE_CHECKING:
    from reuselib.data import Splits
    from reuselib.lineage.manifest import Manifest
    from reuselib.measure.latency import Protocol
    from reuselib.recipe import Recipe
    from reuselib.task import Task


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One model of a comparison."""

    source: str
    """As it was named."""
    name: str
    dir_hash: str
    figures: dict[str, Json]
    """By the names that gates use; `agreement`, `kl` and `speedup` are against the first model."""
    intervals: dict[str, Json]
    """95 % `[low, high]` of each metric."""
    changes: dict[str, Json]
    """95 % `[low, high]` of the difference from the first model, on the same rows."""
    drift: dict[str, Json]
    """Against the first model, see `measure.drift.drift`."""
    chance: bool
    """Whether it has no head for this task, so that its answers mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What a comparison found. The first model is the one that the others are held against."""

    metric: str
    models: tuple[Compared, ...]
    test: dict[str, Json]
    """The rows: `rows` and `digest`."""
    protocol: dict[str, Json]

    def to_json(self) -> dict[str, Json]:
        """As `reuselib compare --json` prints it."""
        return asdict(self)


def compare_models(
    sources: Sequence[str],
    *,
    recipe: Recipe | None = None,
    store: Path | None = None,
    protocol: Protocol | None = None,
    report: Report | None = None,
) -> Beside:
    """Measure models on the same test rows, their times in turns.

    Args:
        sources: what `Model.load` takes; at least two.
        recipe: says task and data; default: what the first model with a record was measured on.
        store: where children and bases are looked for.
        protocol: how times are taken.
        report: called with the progress.

    Raises:
        SourceError: a model is not there, or none of them says what it is for.
        DataError: the rows are not there any more, or have changed.
    """
    from reuselib.training.seeds import seeded

    place = Store.default(store)
    pinned = [resolve(ModelRef(source), place) for source in sources]
    task, splits = (
        _of_recipe(recipe) if recipe is not None else _recorded([each.manifest for each in pinned])
    )
    opened: list[Opened] = []
    for each in pinned:
        with seeded(0):  # for a head that is not there
            opened.append(open_network(each.folder, task, place))
    probes = [_probe(task, splits, each, protocol) for each in opened]
    timings = in_turns([(p, each.module) for p, each in zip(probes, opened, strict=True)])
    sides: list[Side] = []
    for probe, each, model, timing in zip(probes, opened, pinned, timings, strict=True):
        if report is not None:
            report(Progress("measuring", len(sides), len(pinned)))
        sides.append(Side(probe.measure(each.module, model.folder), timing))
    if report is not None:
        report(Progress("measuring", len(pinned), len(pinned)))
    return Beside(
        metric=task.metric,
        models=tuple(
            _compared(source, model, side, sides[0], probes[0], chance=bool(each.fresh))
            for source, model, side, each in zip(sources, pinned, sides, opened, strict=True)
        ),
        test=splits.facts["splits"]["test"],
        protocol=probes[0].describe(),
    )


def _compared(
    source: str, model: Pinned, side: Side, first: Side, probe: Probe, *, chance: bool
) -> Compared:
    measured = side.measured
    found = compare(first, side, probe.slices) if side is not first else None
    scalars = {
        name: value
        for name, value in (found.drift if found else {}).items()
        if isinstance(value, int | float)
    }
    figures = recordable(
        {
            **measured.metrics,
            **measured.quality,
            **measured.cost,
            **times(side.timings),
            **scalars,
            **(found.speedup if found else {}),
        }
    )
    assert isinstance(figures, dict)
    return Compared(
        source=source,
        name=model.manifest.name,
        dir_hash=model.manifest.digests.dir_hash,
        figures=figures,
        intervals={name: list(each) for name, each in intervals(measured.draws).items()},
        changes=found.changes if found else {},
        drift=found.drift if found else {},
        chance=chance,
    )


def _probe(task: Task, splits: Splits, opened: Opened, protocol: Protocol | None) -> Probe:
    """The rows as this model's own processor encodes them."""
    return Probe(
        task=task,
        processor=opened.processor,
        rows=splits.test,
        columns=splits.columns,
        examples=task.encode(splits.test, opened.processor),
        protocol=protocol,
    )


def _of_recipe(recipe: Recipe) -> tuple[Task, Splits]:
    if recipe.data is None:
        raise DataError(
            "the recipe names no data to compare the models on",
            expected="`data` with a test split",
            fix="add `data: {source: ...}`",
        )
    splits = recipe.data.load()
    return recipe.task.pin(splits), splits


def _recorded(manifests: Sequence[Manifest]) -> tuple[Task, Splits]:
    """Task and rows of the first model whose record says both."""
    fix = "give a recipe that names task and data: `--recipe r.yaml`"
    manifest = next((each for each in manifests if each.definition.data), None)
    if manifest is None:
        raise SourceError(
            "none of these models says what it is for and on which rows it was measured",
            expected="at least one child of reuselib that was made with data",
            fix=fix,
        )
    described = dict(manifest.definition.data or {})
    source = str(described.get("source"))
    if source.partition(":")[0] in ("file", "memory", "imagefolder"):
        raise DataError(
            f"{manifest.name} was measured on rows that only its maker can find ({source})",
            expected="rows of a hub or a sample, or a recipe that names them",
            fix=fix,
        )
    splits = parse_value(Data, described).load()
    recorded = [each.digest for each in manifest.definition.dependencies if each.role == "dataset"]
    if recorded and recorded[0].get("rowsHash1") != splits.digest:
        raise DataError(
            f"the rows at {source} are no longer those that {manifest.name} was measured on",
            expected=f"rowsHash1 {recorded[0].get('rowsHash1')}; got {splits.digest}",
            fix=f"get the same rows, or {fix}",
        )
    return recorded_task(manifest).pin(splits), splits
