"""What a run will do, settled before anything heavy is loaded: inputs pinned, order checked, identities computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, Json, ModelRef
from reuselib.derivation.origin import origin
from reuselib.errors import IncompatibleStep, Problem, RecipeError, StoreError
from reuselib.lineage import canonical
from reuselib.lineage.chain import history
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify
from reuselib.measure.gates import Gate, faults
from reuselib.model.reference import Base, reference
from reuselib.model.source import Pinned, glance, resolve

if TYPE_CHECKING:
    from reuselib.data import Data, Splits
    from reuselib.task import Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Pinned inputs of a run: the same plan gives the same children."""

    base: Pinned
    steps: tuple[Adapter, ...]
    """With every `ModelRef` pinned."""
    task: Task
    """With what the rows decide filled in, such as the labels."""
    splits: Splits | None
    data: Data | None
    """Where the rows come from, pinned; no path of this machine. None for rows from Python."""
    seed: int
    store: Store
    gates: tuple[Gate, ...] = ()
    """What the last child must reach. A condition on the run: it is in no record and no identity."""
    is_pinned: bool = True
    """Whether the models' bytes were read. If not, this is for estimates: nothing can be identified or run by it."""

    def id(self, adapter: Adapter, parent: Pinned) -> str:
        """Derivation id of the child that `adapter` makes of `parent`: 64 hex digits.

        It depends on the inputs only, so a child can be looked up before it is computed.
        """
        return hashlib.sha256(canonical.dumps(self.inputs(adapter, parent))).hexdigest()

    def inputs(self, adapter: Adapter, parent: Pinned) -> dict[str, Json]:
        """All that decides what that child is."""
        inputs: dict[str, Json] = {
            "derivation": 1,
            "parent": list(identity(parent.manifest)),
            "adapter": with_references(adapter, nameless).describe(),
            "task": self.task.describe(),
            "data": self.splits.digest if self.splits else None,
            "seed": self.seed,
        }
        if adapter.uses_origin:
            # the parent's bytes do not say what it was made from
            inputs["origin"] = list(identity(origin(parent.manifest, parent.history)[0]))
        return inputs

    def finished(self) -> tuple[Path, ...]:
        """Folders of the leading steps whose children are in the store already, intact.

        Raises:
            StoreError: a child is there, but its bytes do not match its manifest.
        """
        found: list[Path] = []
        parent = self.base
        for adapter in self.steps:
            folder = self.store.find(self.id(adapter, parent))
            if folder is None:
                break
            found.append(intact(folder))
            parent = as_parent(folder, Manifest.read(folder))
        return tuple(found)


def plan(  # noqa: PLR0913 - the fields of a recipe, and the store
    base: Base,
    steps: Adapter | Sequence[Adapter],
    *,
    task: Task,
    data: Data | Splits | None = None,
    seed: int = 0,
    gates: Sequence[Gate] = (),
    store: Path | Store | None = None,
    weights: bool = True,
) -> Plan:
    """Pin and check everything that can be without loading a network; see `derive` for the parameters.

    Without `weights` models are found, but not read: the plan is one to estimate with, not to run.

    Raises:
        ReuseError: an input cannot be had, or a step cannot follow the ones before it.
    """
    from reuselib.data import Data

    if type(seed) is not int or not 0 <= seed < 2**32:
        raise RecipeError(
            [Problem("", "seed", f"expected an integer from 0 to 4294967295; got {seed!r}")]
        )
    steps = (steps,) if isinstance(steps, Adapter) else tuple(steps)
    if not steps:
        raise IncompatibleStep(
            "there is no step", expected="at least one adapter", fix="add one under `steps`"
        )
    _refuse_gates(gates, task, has_rows=data is not None)
    place = Store.default(store)
    find = resolve if weights else glance
    pinned = find(reference(base, task, place), place)
    check_order(steps, form_of(pinned.manifest))
    _refuse_code_in_children(pinned, steps)
    splits = data.load() if isinstance(data, Data) else data
    return Plan(
        base=pinned,
        steps=tuple(with_references(each, lambda ref: find(ref, place).ref) for each in steps),
        task=task.pin(splits) if splits is not None else task,
        splits=splits,
        data=data.pin(splits) if isinstance(data, Data) and splits is not None else None,
        seed=seed,
        store=place,
        gates=tuple(gates),
        is_pinned=weights,
    )


def _refuse_gates(gates: Sequence[Gate], task: Task, *, has_rows: bool) -> None:
    problems = [
        Problem("", f"gates[{index}].{figure}", message)
        for index, figure, message in faults(gates, task, has_rows=has_rows)
    ]
    if problems:
        raise RecipeError(problems)


def intact(folder: Path) -> Path:
    """A child in the store, if it is what its manifest says.

    Raises:
        StoreError: it is not.
    """
    report = verify(folder)
    if not report.ok:
        raise StoreError(
            f"the stored child {folder.name[:12]} is damaged: {report.problems[0]}",
            expected="a child whose bytes match its manifest",
            fix=f"remove {folder} and run again; it will be computed anew",
        )
    return folder


def check_order(steps: Sequence[Adapter], form: str) -> tuple[str, ...]:
    """The form of each child in turn.

    Raises:
        IncompatibleStep: a step cannot follow the ones before it; names the step and says why.
    """
    forms: list[str] = []
    for index, adapter in enumerate(steps):
        try:
            form = adapter.follow(form)
        except IncompatibleStep as error:
            what = f"steps[{index}]: {error.what}"
            raise IncompatibleStep(what, expected=error.expected, fix=error.fix) from None
        forms.append(form)
    return tuple(forms)


def form_of(manifest: Manifest | None) -> str:
    """The form a model has: `dense` unless its manifest says otherwise."""
    internal = manifest.definition.internal if manifest else None
    return internal.form if internal else "dense"


def identity(manifest: Manifest) -> tuple[str, ...]:
    """What a model *is*: its digest and, if it holds an adapter only, those of the models it needs."""
    internal = manifest.definition.internal
    return (manifest.digests.dir_hash, *(internal.requires if internal else ()))


def as_parent(folder: Path, manifest: Manifest) -> Pinned:
    """A child in the store as the base of the next step."""
    return Pinned(
        ModelRef(f"store:{manifest.derivation_id}", digest=manifest.digests.dir_hash),
        folder,
        f"urn:reuselib:model:{manifest.derivation_id}",
        manifest,
        history(folder),
    )


def references(adapter: Adapter) -> tuple[tuple[str, ModelRef], ...]:
    """The other models that an adapter's fields name, in order, each with the role of its field."""
    found: list[tuple[str, ModelRef]] = []
    for entry in fields(adapter):  # type: ignore[arg-type]
        value, role = getattr(adapter, entry.name), adapter.roles.get(entry.name, "student-init")
        named = value if isinstance(value, tuple) else (value,)
        found += [(role, each) for each in named if isinstance(each, ModelRef)]
    return tuple(found)


def with_references(adapter: Adapter, change: Callable[[ModelRef], ModelRef]) -> Adapter:
    """The adapter with every `ModelRef` in its fields, alone or in a tuple, changed."""
    changed: dict[str, object] = {}
    for entry in fields(adapter):  # type: ignore[arg-type]
        value = getattr(adapter, entry.name)
        if isinstance(value, ModelRef):
            changed[entry.name] = change(value)
        elif isinstance(value, tuple) and any(isinstance(item, ModelRef) for item in value):
            changed[entry.name] = tuple(map(change, value))
    return replace(adapter, **changed) if changed else adapter  # type: ignore[type-var]


def nameless(ref: ModelRef) -> ModelRef:
    """What a model is, wherever it lies: the same bytes under another name make the same child."""
    return ModelRef("", digest=ref.digest)


def _refuse_code_in_children(base: Pinned, steps: Sequence[Adapter]) -> None:
    """A child holds data only, so a network whose class is code of its own could not be opened again."""
    index = next((at for at, step in enumerate(steps) if step.whole), None)
    if index is not None and base.ref.trust_remote_code and any(base.folder.glob("*.py")):
        raise IncompatibleStep(
            f"steps[{index}]: '{steps[index].kind}' would write a whole model, but {base.ref.source} needs code from "
            "its own repository, and nothing in a child's folder is ever executed",
            expected="a network that is part of transformers, or steps that leave an adapter only",
            fix="end the recipe with `lora`",
        )
