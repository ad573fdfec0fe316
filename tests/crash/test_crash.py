"""A small share of what `make crash` does, and whether what it looks for would be found."""

from __future__ import annotations

import shutil

import pytest

from chains import flip
from crash import run
from crash.cuts import cuts
from crash.world import Place, corrupt_checkpoints, faults


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with run.Bench.open(tmp_path_factory.mktemp("crash"), 1) as bench:
        yield bench


def test_killed_runs_go_on_and_end_as_if_nothing_had_happened(bench):
    attempts = run.schedule(5, 4, 0, bench.reference)

    tallies = run.carry_out(bench, attempts, lambda *_: None)

    assert [problem for each in tallies.values() for problem in each.problems] == []
    assert sum(each.tried for each in tallies.values()) >= 7
    assert sum(each.lost + each.corrupt for each in tallies.values()) == 0


def test_power_cuts_leave_whole_children_only_and_a_run_recovers(bench):
    seen, chosen = cuts(bench.reference, 2, 0)
    attempts = [run.Attempt("cut", number, cut=cut) for number, cut in enumerate(chosen)]

    tallies = run.carry_out(bench, attempts, lambda *_: None)

    assert seen.problems == []
    assert seen.num_states > 100
    assert tallies["cut"].problems == []


class TestWhatGoesWrongIsFound:
    """In a store that is damaged by hand."""

    @pytest.fixture
    def place(self, bench, tmp_path):
        place = Place(tmp_path / "place")
        place.prepare(old=bench.folder / "before/disk/output")
        shutil.copytree(bench.folder / "before/disk/store/models", place.store / "models")
        return place

    def test_damaged_and_foreign_children(self, bench, place):
        assert any("is another one" in each for each in faults(place, bench.reference))

        child = next((place.store / "models").iterdir())
        flip(child / "config.json")
        assert any("is damaged" in each for each in faults(place, bench.reference))

        (child / "lineage/manifest.json").unlink()
        assert any("has no manifest" in each for each in faults(place, bench.reference))

    def test_output_that_is_neither_old_nor_new(self, bench, place):
        flip(place.output / "config.json")
        assert any("neither old nor new" in each for each in faults(place, bench.reference))

        shutil.rmtree(place.output)
        assert "the old output is lost" in faults(place, bench.reference)

    def test_checkpoint_of_another_state_that_counts_as_valid(self, bench, place):
        from reuselib.lineage.checkpoints import Checkpoints, Title

        name = next(each for each in bench.reference.checkpoints if not each.endswith("end"))
        title = Title(
            training=0,
            step=int(name.rpartition("-")[2]),
            num_steps=6,
            inputs={},
            environment={},
            notes={},
        )
        with Checkpoints(place.store, name.partition("/")[0]).add(title) as folder:
            (folder / "tensors.safetensors").write_bytes(b"other")

        assert len(corrupt_checkpoints(place, bench.reference)) == 1
        path = place.store / "checkpoints" / name / "tensors.safetensors"
        path.write_bytes(b"othe")
        assert corrupt_checkpoints(place, bench.reference) == []

    def test_run_whose_promises_are_not_synced(self, bench):
        from dataclasses import replace

        log = [each for each in bench.reference.log if each.kind != "fsync"]

        seen, _ = cuts(replace(bench.reference, log=log), 1, 0)

        assert seen.lost > 0
        assert any("not whole" in each or "gone" in each for each in seen.problems)


def test_errors_without_words_are_found():
    ended = run.Ended(1, 0.0, "This is a bug in reuselib", None)
    assert run._unexplained(ended)
    assert not run._unexplained(
        run.Ended(3, 0.0, "cannot write\nexpected: room\nfix: free some", 1)
    )
