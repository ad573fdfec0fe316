"""One step of a history with everything at hand to check it, and what its record must say whatever the adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, Finding, Json, Weights
from reuselib.derivation.origin import origin
from reuselib.derivation.plan import form_of, references
from reuselib.errors import IncompatibleStep, ReuseError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.headers import headers
from reuselib.lineage.tensors import Tensors
from reuselib.model.opening import recorded_adapter
from reuselib.model.weights import own_weights, parent_weights
from reuselib.tasks.outputs import describes_others

if TYPE_CHECKING:
    from reuselib.evidence.whereabouts import Whereabouts
    from reuselib.lineage.definition import Internal
    from reuselib.lineage.manifest import Manifest


@dataclass(frozen=True)
class Claims:
    """One edge of the lineage, with everything at hand to check it."""

    adapter: Adapter
    parents: Sequence[Weights]
    child: Weights
    structure: Json

    def check(self, child: Weights) -> Iterable[Finding]:
        """What holds between the parents and `child`, if that were the child."""
        return self.adapter.prove(self.parents, child, self.structure)


def gather(manifest: Manifest, folder: Path, sources: Whereabouts) -> Claims:
    """The step that a manifest records, with the weights to check it with.

    Raises:
        SourceError: a parent is not at hand.
        IntegrityError: what is there is another model, or cannot be read.
        RecipeError: the recorded adapter is not known here, or its fields do not fit.
    """
    first = parent_weights(manifest, sources)
    others = [
        own_weights(sources.folder(parent), sources.manifest(parent), sources)
        for parent in manifest.parents[1:]
    ]
    internal = settled(manifest)
    return Claims(recorded_adapter(manifest), [first, *others], Tensors(folder), internal.structure)


def settled(manifest: Manifest) -> Internal:
    """What the run of a derivation settled, which is there for all but bases."""
    assert manifest.definition.internal is not None, "a base is no step"
    return manifest.definition.internal


def across(manifest: Manifest, folder: Path, sources: Whereabouts) -> Iterator[Finding]:
    """What holds between a child and its parent's parent, if the first parent is not at hand.

    Nothing, if that is not at hand either.
    """
    start = sources.known(manifest.parents[0])
    if start is None or start.definition.internal is None:
        return
    before, adapter = recorded_adapter(start), recorded_adapter(manifest)
    try:
        parent = parent_weights(start, sources)
    except SourceError:
        return
    structure = settled(manifest).structure
    yield from adapter.prove_across(before, parent, Tensors(folder), structure)


def with_before(manifest: Manifest, adapter: Adapter, sources: Whereabouts) -> Iterator[Finding]:
    """What holds between the record of a step and that of the step before, if that is known."""
    start = sources.known(manifest.parents[0])
    if start is not None and start.definition.internal is not None:
        before, recorded = recorded_adapter(start), settled(start).structure
        yield from adapter.prove_record(before, recorded, settled(manifest).structure)


def consistent(manifest: Manifest, adapter: Adapter, sources: Whereabouts) -> Finding:
    """What a step's record says twice is the same both times, and its parents are those that its recipe names."""
    fault = next(_faults(manifest, adapter, sources), "")
    return Finding("the record of the step agrees with itself", not fault, fault)


def _faults(manifest: Manifest, adapter: Adapter, sources: Whereabouts) -> Iterator[str]:
    if manifest.relation != adapter.relation:
        yield f"relation {manifest.relation}, but '{adapter.kind}' makes {adapter.relation}"
    yield from _other_parents(manifest, adapter, sources)
    yield from _other_form(manifest, adapter, sources)


def _other_parents(manifest: Manifest, adapter: Adapter, sources: Whereabouts) -> Iterator[str]:
    """The recipe pins each model that it names, and the parents are bound by digest: both must mean the same."""
    named = references(adapter)
    roles = ["base", *(role for role, _ in named), *["teacher"] * adapter.uses_origin]
    if (found := [parent.role for parent in manifest.parents]) != roles:
        yield f"parents {', '.join(found)}; its recipe needs {', '.join(roles)}"
        return
    for parent, (_, ref) in zip(manifest.parents[1:], named, strict=False):
        if ref.digest != parent.digests.dir_hash:
            yield f"'{parent.name}' is {parent.digests.dir_hash}, but its recipe names {ref.digest}"
    if adapter.uses_origin and (start := sources.known(manifest.parents[0])):
        history = {sha: each.payload() for sha, each in sources.manifests.items()}
        try:
            before = origin(start, history)[0].digests
        except SourceError:
            return
        if manifest.parents[-1].digests != before:
            yield f"'{manifest.parents[-1].name}' is not what the chain had before it was compressed"


def _other_form(manifest: Manifest, adapter: Adapter, sources: Whereabouts) -> Iterator[str]:
    start = sources.known(manifest.parents[0])
    if start is None:
        return
    form = settled(manifest).form
    try:
        wanted = adapter.follow(form_of(start))
    except IncompatibleStep as error:
        yield error.what
        return
    if form != wanted:
        yield f"form {form}, but '{adapter.kind}' makes {wanted}"


def replaced(manifest: Manifest, folder: Path, sources: Whereabouts) -> Finding | None:
    """A tensor of the parent gave way to a new one only where the child is for another task than the parent.

    None if none did. Otherwise a forger could exempt any head from comparison by calling it new.
    """
    internal = settled(manifest)
    names = sorted({*internal.dropped} & {*internal.fresh})
    if not names:
        return None
    claim = "what is new in place of a tensor of the parent is a head for other labels"
    parent = manifest.parents[0]
    start = sources.known(parent)
    task = start.definition.task if start else None
    if task is not None and task == manifest.definition.task:
        return Finding(claim, False, "the parent was made for the same task", names[0])
    try:
        place = sources.folder(parent)
    except SourceError as error:
        return Finding(claim, None, error.what, names[0])
    before, after = headers(place), headers(folder)
    old = {internal.renamed.get(name, f"{internal.prefix}{name}"): name for name in before}
    alike = [n for n in names if n in after and before[old[n]].shape == after[n].shape]
    if alike and not _for_other_labels(place, manifest.definition.task or {}):
        return Finding(claim, False, "the parent's is for the same labels", alike[0])
    return Finding(claim, True, f"{len(names)} tensors")


def _for_other_labels(folder: Path, task: Mapping[str, Json]) -> bool:
    """Whether a model's configuration names other labels than a task."""
    fields = next(iter(task.values()), None)
    labels = fields.get("labels") if isinstance(fields, dict) else None
    try:
        config = canonical.loads((folder / "config.json").read_bytes())
        names = config.get("id2label") if isinstance(config, dict) else None
        if not isinstance(names, dict) or not isinstance(labels, list):
            return False
        described = SimpleNamespace(id2label={int(key): name for key, name in names.items()})
        return describes_others(described, [str(label) for label in labels])
    except (OSError, ValueError, ReuseError):
        return False
