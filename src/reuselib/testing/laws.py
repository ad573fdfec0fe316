"""The laws that every adapter keeps, each a function that raises `LawBroken` where one does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from reuselib.derivation.plan import check_order
from reuselib.errors import IncompatibleStep, LawBroken
from reuselib.evidence.prove import claims
from reuselib.lineage.chain import read_ancestors, walk
from reuselib.lineage.digest import file_digests
from reuselib.lineage.verify import verify
from reuselib.measure.claims import same_bits
from reuselib.model import Model
from reuselib.recipe import Recipe
from reuselib.testing.bench import SETTINGS, Bench
from reuselib.testing.world import check_world_size

if TYPE_CHECKING:
    from torch import Tensor

INERT = (".safetensors", ".json", ".txt", ".model", ".jinja")
"""Endings of files that hold data only."""


def check_untouched(bench: Bench) -> None:
    """The base is untouched, bit for bit: its files, and the module of a model that is handed over."""
    from reuselib.derivation.derive import Runtime, derive

    files = file_digests(bench.base)
    store = bench.folder / "untouched"
    parent: Model | Path = bench.base
    if bench.before:
        parent = bench.execute(store="untouched", steps=bench.before).model()
    else:
        parent = Model.load(bench.base, task=bench.plan().task, store=store)
    state = {name: value.clone() for name, value in parent.module.state_dict().items()}
    derive(parent, bench.adapter, task=bench.task, data=bench.data, runtime=Runtime(store=store))
    if file_digests(bench.base) != files:
        raise LawBroken("untouched", "a file of the base changed")
    for name, value in parent.module.state_dict().items():
        if name not in state or not same_bits(value, state[name]):
            raise LawBroken("untouched", f"tensor {name} of the model that was handed over changed")


def check_closed(bench: Bench) -> None:
    """What `derive` returns, `derive` takes: some adapter of ours can follow, from the child alone."""
    from reuselib.derivation.derive import Runtime, derive

    refusals: list[str] = []
    for follower in SETTINGS.values():
        try:
            check_order((*bench.steps, follower), "dense")
        except IncompatibleStep as error:
            refusals.append(error.what)
            continue
        runtime = Runtime(store=bench.folder / "store")
        derive(bench.child, follower, task=bench.task, data=bench.data, runtime=runtime)
        return
    if not all(refusals):
        raise LawBroken("closed", "an adapter is refused after this one without a reason")


def check_same(bench: Bench) -> None:
    """Same inputs, same child: the weights again in another store, the derivation id again from YAML."""
    once, again = bench.execution.children[-1], bench.execute(store="again").children[-1]
    if once.manifest.digests != again.manifest.digests:
        raise LawBroken(
            "same",
            f"a second run gave other weights: tensorHash1 {again.manifest.digests.tensor_hash}, "
            f"before {once.manifest.digests.tensor_hash}",
            fix="draw all chance from torch's generator, which is seeded, and iterate in a fixed order",
        )
    parsed = Recipe.parse(bench.recipe.to_yaml())
    if parsed != bench.recipe:
        raise LawBroken("same", "the recipe written as YAML reads back as another one")
    found = parsed.plan(store=bench.folder / "store").finished()
    if not found or found[-1] != once.folder:
        raise LawBroken("same", "the YAML of the recipe names another child than the Python call")


def check_rebuild(bench: Bench) -> None:
    """`load(save(child))` gives bit-equal outputs."""
    rows = bench.plan().splits.test  # type: ignore[union-attr]
    copy = bench.folder / "copy"
    bench.child.save(copy)
    loaded = Model.load(copy, store=bench.folder / "store")
    if not same_bits(loaded.logits(rows), bench.child.logits(rows)):
        raise LawBroken(
            "rebuild",
            "the child gives other outputs after it was saved and loaded",
            fix="hand back in `structure` all that `rebuild` needs, and keep nothing on the module alone",
        )


def check_circle(bench: Bench) -> None:
    """`Recipe.of` gives the recipe that made the child, pinned, with defaults written out."""
    plan, child = bench.execution.plan, bench.execution.children[-1]
    ancestors = walk(child.manifest, read_ancestors(child.folder)).manifests
    found = Recipe.of(child.manifest, ancestors)
    made = Recipe(
        base=plan.base.ref, task=plan.task, data=plan.data, steps=plan.steps, seed=plan.seed
    )
    if found != made:
        raise LawBroken(
            "circle",
            f"the manifest gives another recipe:\n{found.to_yaml()}\nnot\n{made.to_yaml()}",
        )


def check_proof(bench: Bench) -> None:
    """An honest child passes the adapter's proof; a child with a tensor more, less or of another shape fails."""
    child = bench.execution.children[-1]
    case = claims(child.folder, bench.execution.plan.store)
    honest = list(case.check(case.child))
    for finding in honest:
        if finding.holds is False:
            raise LawBroken(
                "proof",
                f"an honest child fails: {finding.claim} ({finding.tensor}: {finding.detail})",
            )
    if not any(finding.holds for finding in honest):
        raise LawBroken(
            "proof", "nothing is shown for an honest child", fix="yield findings in `prove`"
        )
    for forgery, weights in _forgeries(case.child).items():
        if all(finding.holds is not False for finding in case.check(weights)):
            raise LawBroken(
                "proof", f"a child with {forgery} passes", fix="compare names and shapes in `prove`"
            )


def _forgeries(child: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
    import torch

    tensors = {name: child[name] for name in child}
    first = next(iter(tensors))
    return {
        f"tensor {first} missing": {
            name: value for name, value in tensors.items() if name != first
        },
        f"a tensor more, {first}.more": {**tensors, f"{first}.more": torch.zeros(1)},
        f"tensor {first} of another shape": {**tensors, first: torch.zeros(3, 1, 2)},
    }


def check_silence(bench: Bench) -> None:
    """Every ordered pair with an adapter of ours works, or raises `IncompatibleStep` with the reason."""
    for other in SETTINGS.values():
        for pair in ((*bench.steps, other), (*bench.before, other, bench.adapter)):
            kinds = " then ".join(step.kind for step in pair)
            try:
                check_order(pair, "dense")
                execution = bench.execute(steps=pair)
            except IncompatibleStep as error:
                if not (error.what and (error.expected or error.fix)):
                    raise LawBroken(
                        "silence", f"{kinds}: refused without reason or way out"
                    ) from error
                continue
            report = verify(execution.children[-1].folder)
            if not report.ok:
                raise LawBroken("silence", f"{kinds}: {report.problems[0]}")


def check_whole(bench: Bench) -> None:
    """Nothing half-made: cut off while it works or before its child is in place, the store holds whole children."""

    class Cut(BaseException):
        """As abrupt as a signal."""

    def cut(*_: Any, **__: Any) -> None:
        raise Cut

    store = bench.folder / "cut"
    for moment in ("derivation.recording.record", "lineage.rooms.sync_tree"):
        with patch(f"reuselib.{moment}", cut):
            try:
                bench.execute(store="cut")
            except Cut:
                pass
            else:
                raise LawBroken("whole", f"the run did not come to {moment}")
        for folder in sorted((store / "models").glob("*")):
            if not verify(folder).ok:
                raise LawBroken("whole", f"the store holds a damaged child after a cut in {moment}")
    if bench.execute(store="cut").children[-1].manifest.digests != bench.child.manifest.digests:
        raise LawBroken("whole", "the run after a cut ends in other weights")


def check_inert(bench: Bench) -> None:
    """Nothing in the child's folder is executed when it is opened: data only, and a manifest that fits."""
    child = bench.execution.children[-1]
    for name in file_digests(child.folder):
        if Path(name).suffix not in INERT:
            raise LawBroken("inert", f"the child holds {name}", fix=f"save {' '.join(INERT)} only")
    report = verify(child.folder)
    if not report.ok:
        raise LawBroken("inert", str(report.problems[0]))


LAWS: dict[str, Callable[[Bench], None]] = {
    "untouched": check_untouched,
    "inert": check_inert,
    "closed": check_closed,
    "same": check_same,
    "rebuild": check_rebuild,
    "circle": check_circle,
    "proof": check_proof,
    "silence": check_silence,
    "whole": check_whole,
    "world_size": check_world_size,
}
"""By name, in the order of `docs/explanation/design.md`."""
