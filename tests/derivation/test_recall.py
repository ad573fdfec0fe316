from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from chains import run, text_rows
from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Weights
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import Execution, execute
from reuselib.derivation.plan import as_parent, plan
from reuselib.derivation.recall import recall
from reuselib.derivation.rehearsal import rehearse
from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.checking import installed
from reuselib.testing.tiny import tiny_bert


@dataclass(frozen=True, kw_only=True)
class Scout(Adapter):
    """Leaves the network as it is, and tells what the last one found before saying something new."""

    kind: ClassVar[str] = "scout"
    told: ClassVar[list[Json]] = []

    says: str | None = None
    """What to record."""
    number: int = 0
    """Tells steps apart that do the same: else the second would be the first's child again."""

    def adapt(self, module, run: Run) -> Adapted:
        self.told.append(run.recall("scouting"))
        return Adapted(module, byproducts={"scouting": {"says": self.says}} if self.says else {})

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        yield Finding("nothing", True)


@pytest.fixture(scope="module")
def scouted(tmp_path_factory) -> Iterable[Execution]:
    folder = tmp_path_factory.mktemp("scouted")
    base = tiny_bert(folder / "base", head=True)
    Scout.told.clear()
    with installed(Scout):
        yield run(
            [Scout(says="one"), Scout(), Scout(number=1)], base, folder / "store", data=text_rows()
        )


def test_a_step_recalls_what_an_earlier_one_found(scouted):
    assert Scout.told[:3] == [None, {"says": "one"}, {"says": "one"}]
    assert verify(scouted.children[0].folder).ok


def parent(execution: Execution, index: int):
    child = execution.children[index]
    return as_parent(child.folder, child.manifest)


def test_what_was_recorded_but_is_gone_is_an_error_and_not_none(scouted, tmp_path):
    with pytest.raises(SourceError, match="scouting, but is not at hand"):
        recall(parent(scouted, 2), Store(tmp_path), "scouting")

    assert recall(parent(scouted, 2), Store(tmp_path), "another") is None


def test_a_changed_finding_is_refused(scouted):
    path: Path = scouted.children[0].folder / "lineage/scouting.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"one", b"two"))
    try:
        with pytest.raises(IntegrityError, match="changed after it was recorded"):
            recall(parent(scouted, 2), scouted.plan.store, "scouting")
    finally:
        path.write_bytes(before)


def test_a_rehearsal_hands_findings_on_as_well(scouted):
    Scout.told.clear()

    rehearse(scouted.plan)

    assert Scout.told == [None, {"says": "one"}, {"says": "one"}]


def test_a_repeated_run_reuses_the_child_with_its_finding(scouted):
    inputs = scouted.plan
    again = plan(
        inputs.base.folder,
        inputs.steps,
        task=TextClassification(),
        data=text_rows(),
        store=inputs.store.path,
    )

    assert all(child.reused for child in execute(again, Runtime()).children)
