"""What is recorded around steps, against what is measured again on the same folders."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from halving import Halve

from chains import LORA, MERGE, TUNE, text_chain, text_rows
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.derivation.plan import plan
from reuselib.errors import SourceError, TrainingError
from reuselib.measure.drift import calibration_error
from reuselib.measure.latency import Protocol
from reuselib.measure.probe import Probe
from reuselib.model import Model
from reuselib.model.figures import read_figures
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.checking import installed
from reuselib.testing.tiny import tiny_bert


@pytest.fixture(scope="module", autouse=True)
def _known():
    with installed(Halve):
        yield


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """base, lora, merge, then compressed twice with a training between."""
    folder = tmp_path_factory.mktemp("pruned")
    chain = text_chain(folder)
    steps = (LORA, MERGE, Halve(), TUNE, Halve())
    done = execute(chain.plan(steps, store=folder / "own"), Runtime())
    return chain, done.children


def figures(child):
    return read_figures(child.folder)


def logits(child, chain):
    return Model.load(child.folder, store=chain.store).logits(chain.rows.test).double()


class TestSteps:
    def test_what_a_step_leaves_is_what_the_next_one_begins_with(self, pruned):
        _, children = pruned
        for one, other in itertools.pairwise(children):
            before, after = figures(other), figures(one)
            assert before.before == after.after
            assert before.quality_before == after.quality
            assert before.cost_before == {name: after.cost[name] for name in before.cost_before}

    def test_each_model_is_measured_once(self, chain, tmp_path, monkeypatch):
        seen = []
        monkeypatch.setattr(Probe, "measure", _counting(Probe.measure, seen))

        execute(chain.plan((LORA, MERGE, Halve()), store=tmp_path / "store"), Runtime())

        assert len(seen) == 4  # the base and three children

    def test_drift_is_that_of_the_two_models(self, pruned):
        chain, children = pruned
        one, other = (logits(children[index], chain) for index in (2, 3))
        p, q = one.log_softmax(-1), other.log_softmax(-1)

        drift = figures(children[3]).drift

        assert drift["agreement"] == (one.argmax(-1) == other.argmax(-1)).double().mean()
        assert drift["kl"] == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4)
        assert {each["name"] for each in drift["classes"]} == {"bad", "good"}
        assert all(each["name"].startswith("length=") for each in drift["slices"])

    def test_intervals_hold_the_figures(self, pruned):
        _, children = pruned
        found = figures(children[-1])

        for side, values in (("before", found.before), ("after", found.after)):
            for name, (low, high) in found.intervals[side].items():
                assert low <= values[name] <= high
        assert set(found.intervals["change"]) == set(found.after)

    def test_calibration_is_that_of_the_child(self, pruned):
        chain, children = pruned
        task, rows = chain.execution.plan.task, chain.rows.test
        labels = torch.tensor([task.labels.index(row["label"]) for row in rows])
        observed = {"logits": logits(children[-1], chain), "labels": labels}

        found = figures(children[-1]).quality["ece"]

        assert found == pytest.approx(calibration_error(task.beliefs(observed)), abs=1e-6)

    def test_a_smaller_network_has_fewer_operations(self, pruned):
        _, children = pruned
        found = figures(children[2])
        length = found.protocol["inputs"]["1"]["input_ids"][1]
        # two blocks lose 32 of 64 units, each with 32 inputs and 32 outputs
        lost = 2 * 2 * length * 32 * (32 + 32)

        assert found.cost_before["flops"] - found.cost["flops"] == lost
        assert found.cost_before["num_parameters"] - found.cost["num_parameters"] == 2 * (
            32 * 64 + 32
        )

    def test_the_protocol_is_written_beside_the_times(self, chain, tmp_path):
        protocol = Protocol(batch_sizes=(1, 8), rounds=3, seconds=0.01, warm_up=1)

        done = execute(chain.plan((LORA,), store=tmp_path / "s"), Runtime(protocol=protocol))

        found = figures(done.children[0])
        assert (found.protocol["batch_sizes"], found.protocol["rounds"]) == ([1, 8], 3)
        assert {"latency_p50", "latency_p95_batch8"} <= found.cost.keys()
        assert found.cost["peak_bytes"] > 0


class TestOrigin:
    """The model before it was compressed."""

    def test_it_is_the_one_before_the_run_of_compressing_steps(self, pruned):
        _, children = pruned
        merged = children[1]
        for child in children[2:]:
            origin = figures(child).origin
            assert origin["dir_hash"] == merged.manifest.digests.dir_hash
            assert origin["name"] == merged.manifest.name
            assert origin["metrics"] == figures(merged).quality | figures(merged).after
            assert origin["cost"]["flops"] == figures(merged).cost["flops"]

    def test_it_is_the_base_where_nothing_is_compressed(self, pruned):
        chain, children = pruned
        base = chain.execution.plan.base
        for child in children[:2]:
            origin = figures(child).origin
            assert origin["dir_hash"] == base.manifest.digests.dir_hash
            assert (
                origin["metrics"]
                == figures(children[0]).quality_before | figures(children[0]).before
            )

    def test_the_child_is_compared_with_it_in_turns(self, pruned):
        chain, children = pruned
        one, other = logits(children[1], chain), logits(children[-1], chain)
        p, q = one.log_softmax(-1), other.log_softmax(-1)

        origin = figures(children[-1]).origin

        assert origin["drift"]["kl"] == pytest.approx(
            (p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4
        )
        assert set(origin["speedup"]) == {"speedup", "speedup_batch32"}
        assert set(origin["changes"]) == {"accuracy", "f1", "loss"}

    def test_it_is_opened_from_the_store_if_this_run_did_not_make_it(self, pruned, tmp_path):
        """And the figures are the same."""
        chain, children = pruned
        store = tmp_path / "store"
        execute(chain.plan((LORA, MERGE, Halve()), store=store), Runtime())

        done = execute(chain.plan((LORA, MERGE, Halve(), TUNE), store=store), Runtime())

        assert [child.reused for child in done.children] == [True, True, True, False]
        again, first = (figures(child).origin for child in (done.children[-1], children[3]))
        assert again["metrics"] == pytest.approx(first["metrics"])
        assert again["drift"] == pytest.approx(first["drift"])

    def test_a_base_is_measured_again_if_the_run_is_resumed(self, pruned, tmp_path):
        chain, children = pruned
        store = tmp_path / "store"
        execute(chain.plan((LORA,), store=store), Runtime())

        done = execute(chain.plan((LORA, MERGE), store=store), Runtime())

        origin = figures(done.children[-1]).origin
        assert origin["metrics"] == pytest.approx(figures(children[1]).origin["metrics"])

    def test_one_that_is_not_at_hand_is_told(self, pruned, tmp_path, monkeypatch):
        chain, _ = pruned
        monkeypatch.setattr(
            "reuselib.derivation.link.find_origin", _raising(SourceError("it is gone"))
        )

        done = execute(chain.plan((LORA, MERGE, Halve()), store=tmp_path / "store"), Runtime())

        assert figures(done.children[-1]).origin == {"missing": "it is gone"}
        assert figures(done.children[-1]).drift["agreement"] <= 1


def test_without_rows_there_is_what_can_be_counted(tmp_path):
    base = tiny_bert(tmp_path / "bert", head=True)
    task = TextClassification(labels=("bad", "good"))

    settled = plan(base, Halve(), task=task, store=tmp_path / "store")
    child = execute(settled, Runtime()).children[0]

    found = figures(child)
    assert (found.metric, found.before, found.after, found.drift, found.protocol) == (
        "",
        {},
        {},
        {},
        {},
    )
    assert found.cost["num_parameters"] < found.cost_before["num_parameters"]
    assert found.cost["num_bytes"] < found.origin["cost"]["num_bytes"]
    assert "latency_p50" not in found.cost


def test_records_are_the_same_but_for_times(chain, tmp_path):
    """Nothing that is measured depends on chance."""
    told = []
    for name in ("one", "other"):
        done = execute(chain.plan((LORA, MERGE, Halve()), store=tmp_path / name), Runtime())
        text = (done.children[-1].folder / "lineage/metrics.json").read_text()
        told.append(_timeless(json.loads(text)))

    assert told[0] == told[1]


def test_rows_of_other_columns_are_slices(tmp_path):
    from reuselib.data import Splits

    rows = text_rows()
    marked = [
        [{**row, "source": ("web", "book")[index % 2]} for index, row in enumerate(each)]
        for each in (rows.train, rows.test)
    ]
    settled = plan(
        tiny_bert(tmp_path / "bert"),
        LORA,
        task=TextClassification(),
        data=Splits.of(*marked),
        store=tmp_path / "store",
    )

    drift = figures(execute(settled, Runtime()).children[0]).drift

    assert {"source=book", "source=web"} <= {each["name"] for each in drift["slices"]}


def _timeless(value):
    """Without what differs from run to run."""
    if isinstance(value, dict):
        left = {"seconds", "speedup", "examples_per_second", "peak_bytes"}
        return {
            key: _timeless(item)
            for key, item in value.items()
            if key not in left and not key.startswith("latency")
        }
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _counting(method, seen):
    def counted(self, module, folder: Path):
        seen.append(folder)
        return method(self, module, folder)

    return counted


def _raising(error):
    def fail(*_):
        raise error

    return fail


def test_a_model_whose_outputs_are_no_numbers_is_told_before_a_step_takes_its_time(tmp_path):
    from safetensors.torch import load_file, save_file

    base = tiny_bert(tmp_path / "base", head=True)
    tensors = load_file(base / "model.safetensors")
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    made = plan(base, TUNE, task=TextClassification(), data=text_rows(), store=tmp_path / "store")

    with pytest.raises(TrainingError, match="the loss of the network on the test rows is nan"):
        execute(made, Runtime())

    assert made.finished() == ()
