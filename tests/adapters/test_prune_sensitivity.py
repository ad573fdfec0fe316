from __future__ import annotations

import json

import pytest
import torch

from chains import SHORT, run, text_rows
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.prune import Prune
from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep
from reuselib.evidence.prove import prove_step
from reuselib.lineage.verify import verify
from reuselib.model.figures import read_figures
from reuselib.model.opening import open_network
from reuselib.pruning import sensitivity
from reuselib.pruning.budget import Pool
from reuselib.pruning.sensitivity import shared_out
from reuselib.testing.tiny import tiny_bert

ROWS = Calibration(num_rows=16, batch_size=8)
HEADS = Prune(heads=0.25, scope="sensitivity", calibration=ROWS)
UNITS = Prune(ffn=0.5, scope="sensitivity", calibration=ROWS)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Heads go by a profile; the model is trained; units go by the same profile; and how often it was measured."""
    folder = tmp_path_factory.mktemp("pruned")
    base = tiny_bert(folder / "base", head=True, num_layers=3)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        profile = sensitivity.profile
        patch.setattr(sensitivity, "profile", lambda *given: calls.append(1) or profile(*given))
        steps = [HEADS, FineTune(fit=SHORT), UNITS]
        execution = run(steps, base, folder / "store", data=text_rows())
    return execution, len(calls)


def recorded(execution):
    return json.loads((execution.children[0].folder / "lineage/sensitivity.json").read_text())


def lost(child):
    """By axis how many units went."""
    axes = child.manifest.definition.internal.structure["cut"]["axes"]
    return {name: axis["size"] - len(axis["keep"]) for name, axis in axes.items()}


def test_the_profile_lies_beside_the_manifest(pruned):
    execution, _ = pruned

    found = recorded(execution)

    assert found["num_rows"] == 16
    assert found["importance"] == "magnitude"
    assert sorted(each["units"] for each in found["pools"].values()) == [4] * 3 + [64] * 3
    assert verify(execution.children[0].folder).ok


def test_a_later_step_uses_the_profile_instead_of_measuring_again(pruned):
    execution, times = pruned

    assert times == 1
    assert not (execution.children[2].folder / "lineage/sensitivity.json").exists()


def test_as_much_is_lost_as_the_profile_says_where_and_the_share_in_all(pruned):
    execution, _ = pruned
    found = recorded(execution)

    for child, share, kind in ((execution.children[0], 0.25, 4), (execution.children[2], 0.5, 64)):
        names = [name for name, each in found["pools"].items() if each["units"] == kind]
        pools = [Pool(name, torch.ones(kind), (name,)) for name in names]
        expected = shared_out(pools, share, found)
        assert {name: lost(child).get(name, 0) for name in names} == expected
        assert sum(expected.values()) == 3 * kind * share


@pytest.mark.parametrize("index", [0, 2])
def test_the_child_is_proven_and_opens_again(pruned, index):
    execution, _ = pruned
    child, store = execution.children[index], execution.plan.store

    assert all(finding.holds for finding in prove_step(child.folder, store=store).findings)
    opened = open_network(child.folder, execution.plan.task, store)
    assert (
        sum(p.numel() for p in opened.module.parameters())
        == read_figures(child.folder).cost["num_parameters"]
    )


def test_a_new_head_says_nothing_yet(tmp_path):
    base = tiny_bert(tmp_path / "base")

    with pytest.raises(IncompatibleStep, match="scope=sensitivity follows the output"):
        run(UNITS, base, tmp_path / "store", data=text_rows())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"channels": 0.5}, "not for channels"),
        ({"hidden": 0.5}, "no effect without"),
    ],
)
def test_a_scope_without_effect_is_refused(fields, why):
    with pytest.raises(ValueError, match=why):
        Prune(scope="sensitivity", **fields)
