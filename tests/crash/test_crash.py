"""A small share of what `make crash` does, and whether what it looks for would be found."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from chains import flip
from crash import trials
from crash.attempts import Attempt, Numbers, schedule
from crash.bench import Bench
from crash.cuts import cuts
from crash.inspection import corrupt_checkpoints, faults, unpacked
from crash.run import carry_out
from crash.world import Place


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with Bench.open(tmp_path_factory.mktemp("crash"), 1) as bench:
        yield bench


def made(bench, attempts):
    """Tallies of attempts of which nothing may be wrong."""
    tallies = carry_out(bench, attempts, lambda *_: None)
    assert [problem for each in tallies.values() for problem in each.problems] == []
    assert sum(each.lost + each.corrupt for each in tallies.values()) == 0
    return tallies


def at_renaming(bench, scene, start):
    """The operation by which something first leaves or gets such a name."""
    log = bench.scenes[scene].log
    return next(
        at
        for at, each in enumerate(log)
        if each.kind in ("rename", "exchange")
        and (each.path.startswith(start) or each.other.startswith(start))
    )


def test_killed_runs_and_failed_writes_end_as_if_nothing_had_happened(bench):
    numbers = Numbers(kills=2, unpacks=0, pairs=0, faults=2)
    attempts = schedule(numbers, 0, bench.scenes)
    assert {each.kind for each in attempts} == {"moment", "point", "fault"}

    tallies = made(bench, attempts)

    assert sum(each.tried for each in tallies.values()) >= 3


def test_packing_and_unpacking_may_be_killed(bench):
    numbers = Numbers(kills=0, unpacks=2, pairs=0, faults=0)
    attempts = schedule(numbers, 0, bench.scenes)
    assert {each.scene for each in attempts} == {"gc", "unpack"}

    assert made(bench, attempts)["unpack"].tried >= 2


def test_two_runs_at_once_make_each_child_once(bench):
    tally = made(bench, [Attempt("pair", 0, command="run", beside="run")])["pair"]

    assert tally.waited > 0


def test_one_of_two_runs_that_share_a_prefix_may_be_killed(bench):
    at = at_renaming(bench, "run", "store/models/") - 1  # what the other one waits for
    pair = Attempt(
        "pair", 0, scene="pair", command="run", beside="other", at=at // 2, how="kill-after"
    )

    assert made(bench, [pair])["pair"].tried == 1


def test_power_cuts_leave_whole_children_only_and_a_run_recovers(bench):
    seen, chosen = cuts(bench.scenes["run"], 1, 0)

    assert seen.problems == []
    assert seen.num_states > 100
    assert made(bench, [Attempt("cut", 0, cut=chosen[0])])["cut"].recovered == 1


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        ("gc", "store/tensors/"),
        ("gc", "store/packed/"),
        ("gc", "store/models/"),
        ("limit", "store/packed/"),
        ("unpack", "output"),
    ],
)
def test_power_cut_after_a_kill_and_another_command_loses_nothing(bench, scene, name):
    at = at_renaming(bench, scene, name)

    seen, _ = cuts(bench.killed(scene, at), 0, 0, begin=at + 1)

    assert seen.problems == []
    assert seen.num_states > 10


class TestWhatGoesWrongIsFound:
    """In a store that is damaged by hand."""

    @pytest.fixture
    def place(self, bench, tmp_path):
        place = Place(tmp_path / "place")
        place.prepare(bench.start("run"))
        shutil.copytree(bench.folder / "before/disk/store/models", place.store / "models")
        return place

    def test_damaged_and_foreign_children(self, bench, place):
        assert any("is another one" in each for each in faults(place, bench.scenes["run"]))

        child = next((place.store / "models").iterdir())
        flip(child / "config.json")
        assert any("is damaged" in each for each in faults(place, bench.scenes["run"]))

        (child / "lineage/manifest.json").unlink()
        assert any("has no manifest" in each for each in faults(place, bench.scenes["run"]))

    def test_output_that_is_neither_old_nor_new(self, bench, place):
        flip(place.output / "config.json")
        assert any("neither old nor new" in each for each in faults(place, bench.scenes["run"]))

        shutil.rmtree(place.output)
        assert "the old output is lost" in faults(place, bench.scenes["run"])

    def test_checkpoint_of_another_state_that_counts_as_valid(self, bench, place):
        from reuselib.lineage.checkpoints import Checkpoints, Title

        name = next(each for each in bench.scenes["run"].checkpoints if not each.endswith("end"))
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

        assert len(corrupt_checkpoints(place, bench.scenes["run"])) == 1
        path = place.store / "checkpoints" / name / "tensors.safetensors"
        path.write_bytes(b"othe")
        assert corrupt_checkpoints(place, bench.scenes["run"]) == []

    def test_packed_child_that_is_damaged_or_gone(self, bench, tmp_path):
        place, reference = Place(tmp_path / "packed"), bench.scenes["unpack"]
        place.prepare(bench.start("unpack"))
        assert faults(place, reference) == []

        child = next((place.store / "packed").iterdir())
        flip(next((child / "rests").iterdir()))
        assert any("damaged in its packed form" in each for each in faults(place, reference))
        assert any("cannot be had" in each for each in unpacked(place, reference))

        shutil.rmtree(child)
        assert any("is missing" in each for each in faults(place, reference))

    def test_command_whose_promises_are_not_synced(self, bench):
        reference = bench.scenes["gc"]
        log = [each for each in reference.log if each.kind != "fsync"]

        seen, _ = cuts(replace(reference, log=log), 1, 0)

        assert seen.lost > 0
        assert any("not whole" in each for each in seen.problems)
        assert any("gone" in each for each in seen.problems)


def test_child_that_was_made_twice_is_found():
    alone = trials.Ended(0, 0.0, "model ...", 1)
    shared = trials.Ended(0, 0.0, "from the store: lora, merge\n", 1)

    assert trials.num_reused(alone.said, 4) == 0
    assert trials.num_reused(shared.said, 3) == 2
    assert trials.num_reused("nothing was computed: the store holds these", 4) == 4


def test_errors_without_words_are_found():
    ended = trials.Ended(1, 0.0, "This is a bug in reuselib", None)
    assert trials.unexplained(ended)
    assert not trials.unexplained(
        trials.Ended(3, 0.0, "cannot write\nexpected: room\nfix: free some", 1)
    )
