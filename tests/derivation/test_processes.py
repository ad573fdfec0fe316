"""Whole derivations in 1, 2 and 3 processes, on CPU; they are started once for all tests, see `ranks` and `crew`."""

from __future__ import annotations

import crew
import pytest
from crews import (
    CALIBRATED,
    MAY_DIFFER,
    STEPS,
    TRAINED,
    different,
    figures,
    may_differ,
    record,
    tensors,
)
from safetensors.torch import load_file

from reuselib.derivation.company import fingerprint
from reuselib.errors import TrainingError
from reuselib.lineage.manifest import Manifest
from reuselib.testing.world import compare
from reuselib.training.launch import PEER_FAILED
from reuselib.training.threads import as_many

PAIRS = [(name, size) for size in (2, 3) for name in (TRAINED if size == 3 else STEPS)]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", TRAINED)
def test_training_ends_in_the_same_weights(name, size, crews):
    compare(tensors(crews.child(name, 1)), tensors(crews.child(name, size)), size)


@pytest.mark.parametrize("name", CALIBRATED)
def test_what_looks_at_rows_without_training_is_the_same_bit_for_bit(name, crews):
    one, other = crews.child(name, 1), crews.child(name, 2)

    assert Manifest.read(one).digests == Manifest.read(other).digests
    assert figures(one) == figures(other)


@pytest.mark.parametrize("size", [2, 3])
def test_rounding_makes_more_of_a_last_bit_and_nothing_else_does(size, crews):
    """Fourteen steps: an activation that falls to its other neighbour is many thousand last bits away.

    If the processes did anything else than to sum in another order, 64 bits would show it just as well.
    """
    differences = {}
    for name in ("single", "double"):
        one, other = (load_file(crews.store(each) / f"{name}.safetensors") for each in (1, size))
        differences[name] = max(float((one[each] - other[each]).abs().max()) for each in one)

    assert differences["double"] < 1e-13
    assert differences["single"] > 1000 * differences["double"]


@pytest.mark.parametrize(("name", "size"), PAIRS)
def test_records_differ_in_nothing_but_what_is_named_here(name, size, crews):
    one, other = (record(crews.child(name, each)) for each in (1, size))

    differing = set(different(one, other))

    assert {path for path in differing if not may_differ(path)} == set()
    assert (MAY_DIFFER["world size"] in differing) == (name in TRAINED)


@pytest.mark.parametrize(("name", "size"), PAIRS)
def test_figures_on_the_test_rows_are_the_same(name, size, crews):
    one, other = (figures(crews.child(name, each)) for each in (1, size))

    assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_all_processes_end_with_the_same_children(size, crews):
    ids = [crews.note(size, rank)["ids"] for rank in range(size)]

    assert all(each == ids[0] for each in ids)
    assert ids[0] == crews.note(1)["ids"][: len(ids[0])]


@pytest.mark.parametrize("size", [2, 3])
def test_rows_are_encoded_by_the_first_process_only(size, crews):
    alone, together = (crews.note(each, 0)["encoded"] for each in (1, size))
    assert together == alone[: len(together)]
    for rank in range(1, size):
        assert crews.note(size, rank)["encoded"] == []


@pytest.mark.parametrize("size", crew.SIZES)
def test_nothing_unfinished_is_left(size, crews):
    assert list((crews.store(size) / "tmp").iterdir()) == []


def test_a_process_that_fails_while_it_trains_ends_all_of_them_and_only_it_speaks(crews):
    """None of them was ended from outside."""
    assert crews.codes(3) == [PEER_FAILED, TrainingError.exit_code, PEER_FAILED]
    assert crew.REASON in crews.said(3, 1)
    for rank in range(3):
        assert (crew.REASON in crews.said(3, rank)) == (rank == 1)
        assert "Traceback" not in crews.said(3, rank)
    assert not list((crews.store(3) / "failing/models").iterdir())


@pytest.mark.parametrize("size", [1, 2])
def test_where_nothing_fails_all_end_well(size, crews):
    assert crews.codes(size) == [0] * size


def test_one_process_of_a_launcher_is_a_plain_run(crews, tmp_path):
    with as_many(1):
        crew.work([crews.recipes["gptq"].to_yaml()], tmp_path, 0)

    (child,) = (tmp_path / "models").iterdir()
    assert Manifest.read(child).digests == Manifest.read(crews.child("gptq", 1)).digests


def test_a_fingerprint_tells_plans_apart(crews, tmp_path):
    plans = [each.plan(store=tmp_path) for each in crews.recipes.values()]

    assert len({fingerprint(each) for each in plans}) == len(plans)
    again = crews.recipes["lora"].plan(store=tmp_path / "other")
    assert fingerprint(again) == fingerprint(plans[list(STEPS).index("lora")])
