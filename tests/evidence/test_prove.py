from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file

from chains import SHORT, flip, run
from reuselib.adapter import ModelRef
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.merge import Merge
from reuselib.adapters.quantize import Quantize
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime, derive
from reuselib.errors import IntegrityError, SourceError
from reuselib.evidence.prove import claims, prove
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_images, tiny_llama, tiny_rows, tiny_vit


@pytest.fixture
def store(chain):
    return Store(chain.store)


def failures(findings):
    return [finding for finding in findings if finding.holds is not True]


@pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
def test_an_honest_child_is_proven(chain, store, step):
    findings = prove(getattr(chain, step).folder, store)

    assert len(findings) >= 3
    assert failures(findings) == []


@pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
def test_a_copy_of_a_child_is_proven_wherever_it_is(chain, store, tmp_path, step):
    shutil.copytree(getattr(chain, step).folder, tmp_path / "copy")

    assert failures(prove(tmp_path / "copy", store)) == []


def test_a_changed_frozen_tensor_is_found_and_named(chain, store, tmp_path):
    """Even by whoever made the record anew, since the parent's weights decide."""
    folder, name = tmp_path / "copy", "bert.encoder.layer.0.output.dense.weight"
    shutil.copytree(chain.tuned.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors")

    changed, failure = failures(prove(folder, store))

    assert "its manifest records" in changed.claim
    assert failure.tensor == name
    assert "frozen" in failure.claim


def test_a_changed_target_of_a_merge_is_found_and_named(chain, store, tmp_path):
    folder, name = tmp_path / "copy", "bert.encoder.layer.1.attention.self.query.weight"
    shutil.copytree(chain.merged.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors")

    _, failure = failures(prove(folder, store))

    assert failure.tensor == name
    assert "scale x B x A" in failure.claim


def test_a_changed_tensor_that_was_trained_is_found_by_the_childs_own_record(
    chain, store, tmp_path
):
    folder = tmp_path / "copy"
    shutil.copytree(chain.tuned.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors")

    [failure] = failures(prove(folder, store))

    assert "its manifest records" in failure.claim


def test_a_merge_is_proven_against_the_adapter_with_its_base(chain, store):
    case = claims(chain.merged.folder, store)

    [parent] = case.parents
    assert set(Tensors(chain.lora.folder)) < set(parent)
    assert "bert.embeddings.word_embeddings.weight" in parent
    assert case.adapter == Merge()
    assert case.structure == chain.merged.manifest.definition.internal.structure


def test_several_parents_come_in_their_order(chain, store, tmp_path):
    friend = tiny_bert(tmp_path / "friend", head=True, seed=3)
    adapter = Merge(models=(ModelRef(str(friend)),), weights=(0.75, 0.25))
    base = ModelRef(f"store:{chain.tuned.folder.name}")
    task = TextClassification(labels=("bad", "good"))
    child = run(adapter, base, chain.store, data=None, task=task).children[0]

    case = claims(child.folder, store)

    first, second = case.parents
    name = "classifier.weight"
    assert first[name].equal(Tensors(chain.tuned.folder)[name])
    assert second[name].equal(Tensors(friend)[name])
    assert failures(case.check(case.child)) == []
    assert failures(case.check(Tensors(chain.tuned.folder)))


def test_tensors_that_transformers_renames_are_proven_too(tmp_path):
    rows = Splits.of(tiny_images(32, size=16), tiny_images(16, size=16, seed=1))
    steps = (FineTune(train=("head", "block[-1:]"), fit=SHORT), Quantize())
    runtime = Runtime(store=tmp_path / "store")
    child = derive(
        tiny_vit(tmp_path / "base"), steps, task=ImageClassification(), data=rows, runtime=runtime
    )
    store = Store(tmp_path / "store")
    tuned = store.locate(child.manifest.parents[0].digests.dir_hash)

    assert failures(prove(tuned, store)) == []
    assert failures(prove(child.folder, store)) == []


def test_tied_tensors_are_proven_too(tmp_path):
    from reuselib.data import Splits

    base, rows = tiny_llama(tmp_path / "base"), Splits.of(tiny_rows(16), tiny_rows(8, seed=1))

    child = run(
        FineTune(train=("block[:]",), fit=SHORT),
        base,
        tmp_path / "store",
        data=rows,
        task=CausalLM(),
    ).children[0]

    assert failures(prove(child.folder, Store(tmp_path / "store"))) == []


class TestParents:
    def test_a_parent_that_is_not_at_hand_is_named(self, chain, tmp_path):
        with pytest.raises(SourceError, match=chain.execution.plan.base.ref.digest) as caught:
            prove(chain.lora.folder, Store(tmp_path / "empty"))

        assert "'base'" in caught.value.what
        assert caught.value.fix

    def test_a_parent_that_was_changed_is_not_used(self, chain, tmp_path):
        store = Store(tmp_path / "store")
        shutil.copytree(chain.base, tmp_path / "base")
        store.remember_root(chain.execution.plan.base.ref.digest, tmp_path / "base")
        assert failures(prove(chain.lora.folder, store)) == []

        flip(tmp_path / "base/model.safetensors")

        with pytest.raises(IntegrityError, match="no longer the parent 'base'") as caught:
            prove(chain.lora.folder, store)
        assert caught.value.code == "PARENT_MISMATCH"

    @pytest.mark.parametrize("kind", ["base", "nothing"])
    def test_what_claims_no_parent_cannot_be_proven(self, chain, store, tmp_path, kind):
        folder = chain.base if kind == "base" else tmp_path / "nothing"

        with pytest.raises(IntegrityError, match="claims no parent") as caught:
            prove(folder, store)
        assert caught.value.code == "MISSING_LINEAGE"
