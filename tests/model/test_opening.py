from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from chains import LORA, flip, other_labels, plain_peft, plain_text_logits, run
from reuselib.adapter import ModelRef
from reuselib.adapters.quantize import Quantize
from reuselib.derivation.derive import Runtime, derive
from reuselib.errors import IncompatibleStep, IntegrityError, SourceError, UnsafeModel
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors, save_tensors
from reuselib.model.opening import (
    load_weights,
    needed_folder,
    open_network,
    read_manifest,
    recorded_adapter,
)
from reuselib.model.source import resolve
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert

TASK = TextClassification(labels=("bad", "good"))
TEXTS = ("a good film", "the day was awful and dim", "it is")


@pytest.fixture
def store(chain):
    return Store(chain.store)


class Marker:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_a_base_that_is_a_pickle_is_refused_and_nothing_is_executed(chain, store, tmp_path, name):
    folder, marker = tmp_path / "base", tmp_path / "executed"
    shutil.copytree(chain.base, folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Marker(marker)))

    with pytest.raises(UnsafeModel, match=name):
        run(LORA, folder, tmp_path / "store", data=chain.rows)
    with pytest.raises(UnsafeModel):
        open_network(folder, TASK, store)

    assert not marker.exists()
    # the trap is a real one
    pickle.loads((folder / name).read_bytes()).close()
    assert marker.exists()


def test_a_pickle_beside_the_weights_is_not_read(chain, store, tmp_path):
    folder, marker = tmp_path / "base", tmp_path / "executed"
    shutil.copytree(chain.base, folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marker(marker)))

    open_network(folder, TASK, store)

    assert not marker.exists()


class TestRemoteCode:
    """A base that brings its own class, in a file that leaves a mark when it runs."""

    @pytest.fixture
    def marker(self, tmp_path):
        return tmp_path / "executed"

    @pytest.fixture
    def remote(self, tmp_path, marker, monkeypatch):
        folder = tiny_bert(tmp_path / "remote", head=True, num_layers=1)
        (folder / "modeling_acme.py").write_text(
            "from pathlib import Path\n"
            "from transformers import BertForSequenceClassification\n"
            f"Path({str(marker)!r}).write_text('')\n"
            "class Acme(BertForSequenceClassification):\n    pass\n"
        )
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_acme.Acme"}
        (folder / "config.json").write_text(json.dumps(config))
        monkeypatch.setattr(
            "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
        )
        return folder

    def test_it_is_refused_unless_asked_for(self, remote, marker, chain, tmp_path):
        with pytest.raises(UnsafeModel, match="modeling_acme") as caught:
            run(LORA, remote, tmp_path / "store", data=chain.rows)

        assert "trust_remote_code: true" in caught.value.fix
        assert not marker.exists()

    def test_it_runs_when_asked_for_and_again_from_the_store(self, remote, marker, chain, tmp_path):
        ref = ModelRef(str(remote), trust_remote_code=True)

        made = run(LORA, ref, tmp_path / "store", data=chain.rows)
        again = run(LORA, ref, tmp_path / "store", data=chain.rows)

        assert marker.exists()
        assert again.children[0].reused
        rows = chain.rows.test
        assert again.model().logits(rows).equal(made.model().logits(rows))
        assert made.model().ref.trust_remote_code


def test_a_base_without_a_head_gets_a_new_one_that_is_named(chain, store):
    opened = open_network(chain.base, TASK, store)

    assert opened.fresh == {"classifier.weight", "classifier.bias"}
    assert opened.prefix == "bert."
    assert (opened.form, opened.rebuild, opened.requires) == ("dense", (), ())
    assert not opened.module.training


def test_a_new_head_comes_from_the_global_generator(chain, store):
    heads = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        heads.append(open_network(chain.base, TASK, store).module.classifier.weight)

    assert heads[0].equal(heads[1])
    assert not heads[0].equal(heads[2])


def test_an_adapter_is_put_on_the_base_it_was_trained_over(chain, store):
    opened = open_network(chain.lora.folder, TASK, store)

    assert opened.form == "adapter"
    assert opened.requires == (chain.execution.plan.base.ref.digest,)
    assert not opened.module.training
    peft = plain_peft(
        AutoModelForSequenceClassification, chain.base, chain.lora.folder, num_labels=2
    )
    plain = plain_text_logits(peft, chain.base, TEXTS)
    assert plain_text_logits(opened.module, chain.base, TEXTS).equal(plain)
    saved = Tensors(chain.lora.folder)
    name = "base_model.model.classifier.weight"
    assert (
        opened.module.get_base_model()
        .classifier.modules_to_save["default"]
        .weight.equal(saved[name])
    )


@pytest.mark.parametrize("step", ["merged", "tuned"])
def test_a_whole_child_opens_by_itself_without_any_new_parameter(chain, tmp_path, step):
    opened = open_network(getattr(chain, step).folder, TASK, Store(tmp_path / "empty"))

    assert (opened.form, opened.requires, opened.fresh, opened.prefix) == (
        "dense",
        (),
        frozenset(),
        "",
    )


def test_a_child_for_other_labels_gets_a_new_head_that_is_named(chain, store):
    """Else an adapter that follows would neither train nor save it."""
    task = TextClassification().pin(other_labels())

    opened = open_network(chain.tuned.folder, task, store)

    assert opened.fresh == {"classifier.weight", "classifier.bias"}
    assert opened.module.classifier.out_features == 3


@pytest.mark.parametrize("labels", [("good", "mild", "bad"), ("yes", "no")])
def test_an_adapter_for_other_labels_is_refused(chain, store, labels):
    with pytest.raises(IncompatibleStep, match=r"\['bad', 'good'\]") as caught:
        open_network(chain.lora.folder, TextClassification(labels=labels), store)

    assert str(list(labels)) in caught.value.what
    assert "merge" in caught.value.fix


def test_an_adapter_for_another_kind_of_task_is_refused(chain, store):
    from reuselib.tasks.causal_lm import CausalLM

    with pytest.raises(IncompatibleStep, match="causal_lm"):
        open_network(chain.lora.folder, CausalLM(), store)


@pytest.mark.parametrize("task", [None, {"text_classification": 3}])
def test_an_adapter_that_does_not_say_its_task_is_refused(chain, store, tmp_path, task):
    """Made by hand: ours always says it."""
    folder, manifest = tmp_path / "copy", chain.lora.manifest
    shutil.copytree(chain.lora.folder, folder)
    forged = replace(manifest, definition=replace(manifest.definition, task=task))
    (folder / "lineage/manifest.json").write_bytes(forged.payload())

    with pytest.raises(IncompatibleStep, match="holds an adapter only"):
        open_network(folder, TASK, store)


def test_an_adapter_whose_base_is_not_at_hand_says_which(chain, tmp_path):
    with pytest.raises(SourceError, match=chain.execution.plan.base.ref.digest) as caught:
        open_network(chain.lora.folder, TASK, Store(tmp_path / "empty"))

    assert "file:base" in caught.value.what
    assert "open the base once" in caught.value.fix


def test_an_adapter_whose_base_was_replaced_names_both_digests(chain, tmp_path):
    """Same names, same shapes, other weights: peft would take them."""
    base, store = tmp_path / "base", tmp_path / "store"
    shutil.copytree(chain.base, base)
    made = run(LORA, base, store, data=chain.rows)
    tiny_bert(base, seed=7)
    replaced = resolve(ModelRef(str(base)), Store(tmp_path / "other")).ref.digest

    with pytest.raises(IntegrityError) as caught:
        open_network(made.children[0].folder, TASK, Store(store))

    assert caught.value.code == "PARENT_MISMATCH"
    assert made.plan.base.ref.digest in str(caught.value)
    assert replaced in str(caught.value)


def test_a_single_changed_byte_of_a_needed_base_is_noticed(chain, tmp_path):
    store = Store(chain.copied_store(tmp_path))
    shutil.copytree(chain.base, tmp_path / "base")
    store.remember_root(chain.execution.plan.base.ref.digest, tmp_path / "base")
    manifest = chain.lora.manifest
    assert needed_folder(manifest, store) == tmp_path / "base"

    flip(tmp_path / "base/model.safetensors")

    with pytest.raises(IntegrityError, match="PARENT_MISMATCH"):
        needed_folder(manifest, store)


def test_a_manifest_is_read_where_there_is_one(chain):
    assert read_manifest(chain.base) is None
    assert read_manifest(chain.lora.folder) == chain.lora.manifest


def test_the_adapter_that_made_a_child_comes_back_with_its_configuration(chain):
    assert recorded_adapter(chain.lora.manifest) == LORA


class TestLoadWeights:
    @pytest.fixture
    def module(self):
        torch.manual_seed(0)
        module = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 3), "b": torch.nn.Linear(2, 3)})
        module["b"].weight = module["a"].weight
        return module

    def written(self, tmp_path, **tensors):
        save_tensors(
            {name.replace("_", "."): value for name, value in tensors.items()},
            tmp_path / "m.safetensors",
        )
        return Tensors(tmp_path)

    def test_a_tied_tensor_is_needed_once(self, module, tmp_path):
        weights = self.written(
            tmp_path, a_weight=torch.ones(3, 2), a_bias=torch.ones(3), b_bias=torch.zeros(3)
        )

        load_weights(module, weights)

        assert module["b"].weight.equal(torch.ones(3, 2))
        assert module["b"].bias.equal(torch.zeros(3))

    def test_a_missing_tensor_is_named(self, module, tmp_path):
        weights = self.written(tmp_path, a_weight=torch.ones(3, 2), a_bias=torch.ones(3))

        with pytest.raises(IntegrityError) as caught:
            load_weights(module, weights)
        assert (caught.value.code, caught.value.tensor) == ("MISSING_TENSOR", "b.bias")

    @pytest.mark.parametrize(
        ("name", "shape"), [("c_bias", (3,)), ("b_bias", (4,)), ("b_bias", (3, 1))]
    )
    def test_a_tensor_without_a_place_is_named(self, module, tmp_path, name, shape):
        whole = {"a_weight": torch.ones(3, 2), "a_bias": torch.ones(3), "b_bias": torch.ones(3)}
        weights = self.written(tmp_path, **{**whole, name: torch.ones(shape)})

        with pytest.raises(IntegrityError) as caught:
            load_weights(module, weights)
        assert (caught.value.code, caught.value.tensor) == (
            "UNKNOWN_TENSOR",
            name.replace("_", "."),
        )


def test_a_child_built_by_its_record_serves_no_other_labels(chain, store):
    """Its configuration does not describe it, so no head can be put on it."""
    runtime = Runtime(store=chain.store)
    child = derive(chain.merged.folder, Quantize(), task=TASK, data=chain.rows, runtime=runtime)

    with pytest.raises(IncompatibleStep, match="built by the record of its own steps"):
        open_network(child.folder, TextClassification(labels=("a", "b", "c")), store)
