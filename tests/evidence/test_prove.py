from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from chains import SHORT, flip, run
from reuselib.adapter import ModelRef
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.merge import Merge
from reuselib.adapters.quantize import Quantize
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime, derive
from reuselib.errors import IntegrityError, SourceError
from reuselib.evidence.prove import claims, prove, prove_step
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.lineage.verify import verify
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.forging import part, restate, retouch
from reuselib.testing.tiny import tiny_bert, tiny_images, tiny_llama, tiny_rows, tiny_vit

HEAD = "classifier.weight"


@pytest.fixture
def store(chain):
    return Store(chain.store)


def failures(findings):
    return [finding for finding in findings if finding.holds is not True]


@pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
def test_an_honest_child_is_proven(chain, store, step):
    findings = prove_step(getattr(chain, step).folder, store=store).findings

    assert len(findings) >= 3
    assert failures(findings) == []


@pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
def test_a_copy_of_a_child_is_proven_wherever_it_is(chain, store, tmp_path, step):
    shutil.copytree(getattr(chain, step).folder, tmp_path / "copy")

    assert failures(prove_step(tmp_path / "copy", store=store).findings) == []


def test_a_changed_frozen_tensor_is_found_and_named(chain, store, tmp_path):
    """Even by whoever made the record anew, since the parent's weights decide."""
    folder, name = tmp_path / "copy", "bert.encoder.layer.0.output.dense.weight"
    shutil.copytree(chain.tuned.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors")

    changed, failure = failures(prove_step(folder, store=store).findings)

    assert "the manifest records" in changed.claim
    assert failure.tensor == name
    assert "frozen" in failure.claim


def test_a_changed_target_of_a_merge_is_found_and_named(chain, store, tmp_path):
    folder, name = tmp_path / "copy", "bert.encoder.layer.1.attention.self.query.weight"
    shutil.copytree(chain.merged.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name][0, 0] += 1e-3
    save_file(tensors, folder / "model.safetensors")

    _, failure = failures(prove_step(folder, store=store).findings)

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

    [failure] = failures(prove_step(folder, store=store).findings)

    assert "the manifest records" in failure.claim


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

    assert failures(prove_step(tuned, store=store).findings) == []
    assert failures(prove_step(child.folder, store=store).findings) == []


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

    assert failures(prove_step(child.folder, store=Store(tmp_path / "store")).findings) == []


class TestParents:
    def test_a_parent_that_is_not_at_hand_is_named(self, chain, tmp_path):
        step = prove_step(chain.lora.folder, store=tmp_path / "empty")

        assert step.tier == "recorded"
        assert "'base'" in step.why
        assert chain.execution.plan.base.ref.digest in step.why

    def test_a_parent_that_was_changed_is_not_used(self, chain, tmp_path):
        store = Store(tmp_path / "store")
        shutil.copytree(chain.base, tmp_path / "base")
        store.remember_root(chain.execution.plan.base.ref.digest, tmp_path / "base")
        assert prove_step(chain.lora.folder, store=store).tier == "proven"

        flip(tmp_path / "base/model.safetensors")

        step = prove_step(chain.lora.folder, store=store)
        assert step.tier == "broken"
        assert "PARENT_MISMATCH" in step.findings[-1].detail
        assert "no longer 'base'" in step.findings[-1].detail

    def test_a_named_folder_comes_before_the_store(self, chain, tmp_path):
        store = Store(tmp_path / "store")
        shutil.copytree(chain.base, tmp_path / "base")
        store.remember_root(chain.execution.plan.base.ref.digest, tmp_path / "base")
        flip(tmp_path / "base/model.safetensors")

        step = prove_step(chain.lora.folder, parents=[chain.base], store=store)

        assert step.tier == "proven"

    def test_a_named_folder_that_is_no_parent_is_refused(self, chain, tmp_path):
        other = tiny_bert(tmp_path / "other", seed=9)

        with pytest.raises(IntegrityError, match="no model of the history") as caught:
            prove(chain.lora.folder, parents=[other], store=chain.store)
        assert caught.value.code == "PARENT_MISMATCH"

    def test_what_claims_no_parent_cannot_be_proven(self, chain, store):
        with pytest.raises(IntegrityError, match="claims no parent") as caught:
            prove(chain.base, store=store)
        assert caught.value.code == "MISSING_LINEAGE"

    @pytest.mark.parametrize("kind", ["nothing", "a file", "an empty folder"])
    def test_where_no_model_is_there_is_nothing_to_prove(self, store, tmp_path, kind):
        place = tmp_path / "place"
        if kind == "a file":
            place.write_text("x")
        if kind == "an empty folder":
            place.mkdir()

        with pytest.raises(SourceError, match=r"no folder|is empty"):
            prove(place, store=store)


class TestChain:
    def test_a_chain_whose_parents_are_at_hand_is_proven_from_root_to_leaf(self, chain, tmp_path):
        """From folders alone, in any order, with a store that knows nothing."""
        folders = [chain.base, chain.merged.folder, chain.lora.folder]

        proof = prove(chain.tuned.folder, parents=folders, store=tmp_path / "empty")

        assert [step.adapter for step in proof.steps] == ["finetune", "merge", "lora"]
        assert {step.tier for step in proof.steps} == {proof.tier} == {"proven"}
        assert proof.roots == {chain.execution.plan.base.ref.digest: "file:base"}
        assert proof.to_json()["ok"] is True

    def test_steps_around_an_ancestor_that_is_not_at_hand_are_recorded_only(self, chain, tmp_path):
        folders = [chain.base, chain.lora.folder]

        proof = prove(chain.tuned.folder, parents=folders, store=tmp_path / "empty")

        assert [step.tier for step in proof.steps] == ["recorded", "recorded", "proven"]
        assert proof.tier == "recorded"
        assert proof.ok
        missing = f"'{chain.merged.manifest.name}' (dirHash"
        assert any(missing in line and "not at hand" in line for line in proof.unchecked)

    def test_a_forged_ancestor_breaks_its_own_step(self, chain, tmp_path):
        """Its record was made anew, and that of the leaf with it; only the parents' weights tell."""
        name = "bert.encoder.layer.0.output.dense.weight"
        ancestor, leaf = tmp_path / "ancestor", tmp_path / "leaf"
        shutil.copytree(chain.merged.folder, ancestor)
        shutil.copytree(chain.tuned.folder, leaf)
        value = Tensors(chain.merged.folder)[name] + 1e-6
        merged = retouch(ancestor, {name: value})
        adopt(leaf, chain.merged.manifest, merged)
        retouch(leaf, {name: value})
        assert verify(ancestor).ok
        assert verify(leaf).ok

        proof = prove(leaf, parents=[ancestor], store=chain.store)

        assert [step.tier for step in proof.steps] == ["proven", "broken", "proven"]
        assert not proof.ok
        (wrong,) = failures(proof.steps[1].findings)
        assert wrong.tensor == name

    def test_a_parent_without_a_manifest_at_hand_is_a_gap(self, chain, store, tmp_path):
        """Its weights alone would be taken for something else: of an adapter they are not all."""
        leaf = tmp_path / "leaf"
        shutil.copytree(chain.merged.folder, leaf)
        (leaf / f"lineage/ancestors/{chain.lora.manifest.sha256}.json").unlink()

        proof = prove(leaf, store=store)

        assert [step.tier for step in proof.steps] == ["recorded", "missing"]
        assert proof.tier == "missing"

    def test_a_gap_is_closed_by_the_record_in_a_named_folder(self, chain, store, tmp_path):
        leaf = tmp_path / "leaf"
        shutil.copytree(chain.merged.folder, leaf)
        (leaf / f"lineage/ancestors/{chain.lora.manifest.sha256}.json").unlink()

        proof = prove(leaf, parents=[chain.lora.folder], store=store)

        assert [step.tier for step in proof.steps] == ["proven", "proven"]

    def test_a_changed_leaf_does_not_hide_the_rest(self, chain, store, tmp_path):
        shutil.copytree(chain.tuned.folder, tmp_path / "leaf")
        flip(tmp_path / "leaf/model.safetensors")

        proof = prove(tmp_path / "leaf", store=store)

        assert [step.tier for step in proof.steps] == ["broken", "proven", "proven"]

    def test_an_unread_model_of_a_stranger_is_no_traceback(self, chain, store, tmp_path):
        shutil.copytree(chain.tuned.folder, tmp_path / "leaf")
        (tmp_path / "leaf/model.safetensors").write_bytes(b"\0" * 20)

        proof = prove(tmp_path / "leaf", store=store)

        assert proof.steps[0].tier == "broken"
        assert "BAD_SAFETENSORS" in proof.steps[0].findings[-1].detail


class TestRecord:
    """What a manifest says twice must be the same both times."""

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda s: part(s, "externalParameters").update(relation="prune"), "relation prune"),
            (lambda s: part(s, "internalParameters").update(form="sparse"), "form sparse"),
        ],
    )
    def test_what_does_not_fit_the_adapter_is_found(self, chain, store, tmp_path, change, why):
        shutil.copytree(chain.tuned.folder, tmp_path / "leaf")
        restate(tmp_path / "leaf", change)

        step = prove_step(tmp_path / "leaf", store=store)

        assert step.tier == "broken"
        assert why in step.findings[0].detail

    def test_a_head_is_not_new_where_the_parent_has_one_for_the_task(self, chain, store, tmp_path):
        shutil.copytree(chain.tuned.folder, tmp_path / "leaf")
        restate(
            tmp_path / "leaf",
            lambda s: part(s, "internalParameters").update(fresh=[HEAD], dropped=[HEAD]),
        )

        (wrong,) = failures(prove_step(tmp_path / "leaf", store=store).findings)

        assert wrong.tensor == HEAD
        assert "same task" in wrong.detail

    def test_two_tensors_cannot_take_over_one_name(self, chain, store, tmp_path):
        """Else whichever comes last would be compared, and the other not at all."""
        shutil.copytree(chain.tuned.folder, tmp_path / "leaf")
        names = sorted(Tensors(chain.merged.folder))
        renamed = {names[0]: names[1]}
        restate(tmp_path / "leaf", lambda s: part(s, "internalParameters").update(renamed=renamed))

        step = prove_step(tmp_path / "leaf", store=store)

        assert step.tier == "broken"
        assert "BAD_STRUCTURE" in step.findings[-1].detail

    def test_an_adapter_that_is_not_installed_is_no_refutation(self, chain, store, tmp_path):
        shutil.copytree(chain.tuned.folder, tmp_path / "leaf")
        restate(
            tmp_path / "leaf", lambda s: part(s, "externalParameters").update(adapter="unheard")
        )

        step = prove_step(tmp_path / "leaf", store=store)

        assert step.tier == "recorded"
        assert "unheard" in step.why

    def test_a_proof_that_is_cut_short_proves_nothing(self, chain, store, monkeypatch):
        honest = Merge.prove

        def prove(self, *given):
            yield next(iter(honest(self, *given)))
            raise SourceError("a shard went away")

        monkeypatch.setattr(Merge, "prove", prove)

        step = prove_step(chain.merged.folder, store=store)

        assert (step.tier, step.why) == ("recorded", "a shard went away")

    def test_how_much_was_compared_is_said(self, chain, store):
        tuned, merged, lora = prove(chain.tuned.folder, store=store).steps

        trained = len(chain.tuned.manifest.definition.internal.structure["trained"])
        assert tuned.compared == tuned.num_tensors - trained
        assert "the others may be anything that fits" in tuned.extent
        assert merged.compared == merged.num_tensors > 0
        assert merged.extent.endswith("compared by value")
        assert (lora.compared, lora.whole) == (0, False)
        assert "by digest" in lora.extent
        assert lora.to_json()["extent"] == lora.extent

    def test_an_adapter_that_fails_breaks_the_step_and_is_named(self, chain, store, monkeypatch):
        def prove(*_):
            raise KeyError("somewhere inside")

        monkeypatch.setattr(Merge, "prove", prove)

        step = prove_step(chain.merged.folder, store=store)

        assert step.tier == "broken"
        (wrong,) = failures(step.findings)
        assert "'merge'" in wrong.claim
        assert wrong.detail == "KeyError: 'somewhere inside'"


def adopt(leaf, old, new):
    """Put a forged parent into a leaf's history in place of the honest one."""
    (leaf / f"lineage/ancestors/{old.sha256}.json").unlink()
    (leaf / f"lineage/ancestors/{new.sha256}.json").write_bytes(new.payload())

    def change(statement):
        for item in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
            if item["name"] == "base":
                item["digest"] = new.digests.to_json()
            if item["name"] == "base.statement":
                item["digest"] = {"sha256": new.sha256}

    restate(leaf, change)


class TestMergeWithoutItsAdapter:
    """The base alone shows the rank of what was merged into it, if the adapter was not handed over."""

    def step(self, chain, folder, tmp_path):
        return prove_step(folder, parents=[chain.base], store=tmp_path / "empty")

    def claim(self, step):
        return next(each for each in step.findings if "rank 2" in each.claim)

    def test_the_rank_of_an_honest_merge_holds_and_is_no_proof(self, chain, tmp_path):
        step = self.step(chain, chain.merged.folder, tmp_path)

        assert self.claim(step).holds is True
        assert step.tier == "recorded"
        assert [each.claim for each in step.findings if each.holds is None] == [
            "the update is scaled by lora_alpha / r"
        ]

    def test_one_more_rank_is_found(self, chain, tmp_path):
        folder, name = tmp_path / "copy", "bert.encoder.layer.1.attention.self.query.weight"
        shutil.copytree(chain.merged.folder, folder)
        value = Tensors(folder)[name].clone()
        torch.manual_seed(0)
        rows, columns = value.shape
        more = torch.outer(torch.randn(rows), torch.randn(columns)) * 1e-4
        retouch(folder, {name: value + more})

        step = self.step(chain, folder, tmp_path)

        assert self.claim(step).holds is False
        assert self.claim(step).tensor == name
        assert step.tier == "broken"

    def test_a_moved_tensor_that_was_no_target_is_found(self, chain, tmp_path):
        folder, name = tmp_path / "copy", "bert.embeddings.word_embeddings.weight"
        shutil.copytree(chain.merged.folder, folder)
        retouch(folder, {name: Tensors(folder)[name] + 1e-6})

        assert self.step(chain, folder, tmp_path).tier == "broken"

    def test_in_a_coarse_type_the_update_does_not_stand_out(self, chain, tmp_path):
        folder, name = tmp_path / "copy", "bert.encoder.layer.1.attention.self.query.weight"
        shutil.copytree(chain.merged.folder, folder)
        base = Tensors(chain.base)[name.removeprefix("bert.")]
        faint = base + (Tensors(folder)[name] - base) * 1e-7
        retouch(folder, {name: faint})

        claim = self.claim(self.step(chain, folder, tmp_path))
        assert claim.holds is None
        assert "at this precision" in claim.detail


def test_a_scale_that_the_adapter_does_not_have_is_found(chain, store, tmp_path):
    """A forger who scales the update says so in the record of the merge, but cannot change that of the adapter."""
    folder = tmp_path / "copy"
    shutil.copytree(chain.merged.folder, folder)
    restate(folder, lambda s: part(s, "internalParameters")["structure"].update(scale=2.5))

    findings = failures(prove_step(folder, store=store).findings)

    assert any("scale" in each.detail for each in findings)
