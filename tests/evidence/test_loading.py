"""What `load` hands out is what it checked, whatever happens to the folder meanwhile."""

from __future__ import annotations

import gc
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from chains import flip
from reuselib import Model, Runtime, derive
from reuselib.adapters.merge import Merge
from reuselib.errors import IntegrityError, RecipeError, SourceError
from reuselib.evidence import loading
from reuselib.evidence.loading import load
from reuselib.lineage.manifest import MANIFEST
from reuselib.lineage.policy import Policy
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.signing.keys import make_keys
from reuselib.signing.sign import sign
from reuselib.testing.forging import retouch
from reuselib.testing.tiny import tiny_bert, tiny_rows

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(chain, tmp_path) -> Path:
    """The last model of the chain, in a folder of one's own."""
    return Path(shutil.copytree(chain.tuned.folder, tmp_path / "model"))


def outputs(model: Model) -> torch.Tensor:
    return model.logits(tiny_rows(4, seed=5))


def code(folder: Path, **demands) -> str:
    with pytest.raises(IntegrityError) as caught:
        load(folder, **demands)
    return caught.value.code


def test_loaded_model_is_the_one_in_the_folder(chain, folder):
    model = load(folder)

    assert torch.equal(outputs(model), outputs(Model.load(chain.tuned.folder, store=chain.store)))
    assert model.manifest == chain.tuned.manifest


def test_folder_that_does_not_match_is_not_loaded(folder):
    flip(folder / WEIGHTS)

    assert code(folder) == "DIGEST_MISMATCH"


def damage(folder: Path) -> None:
    """In place, so that whoever has mapped the file sees it."""
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\x7f" * 4096)


@pytest.mark.parametrize("after", ["_copied", "_verified", "_reach", "_bring"])
def test_change_between_the_check_and_the_opening_has_no_effect(folder, monkeypatch, after):
    honest = outputs(load(folder))
    genuine: Callable[..., object] = getattr(loading, after)

    def then_change(*arguments, **options):
        result = genuine(*arguments, **options)
        damage(folder)
        return result

    monkeypatch.setattr(loading, after, then_change)
    model = load(folder)

    assert torch.equal(outputs(model), honest)


def test_change_of_the_file_while_it_is_copied_is_noticed(folder, monkeypatch):
    genuine = loading._copy_file

    def change_first(source: Path, target: Path) -> None:
        if source.name == WEIGHTS:
            damage(folder)
        genuine(source, target)

    monkeypatch.setattr(loading, "_copy_file", change_first)

    assert code(folder) == "DIGEST_MISMATCH"


def test_folder_that_changes_all_the_time_is_loaded_honestly_or_refused(folder):
    honest = outputs(load(folder))
    good = (folder / WEIGHTS).read_bytes()
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            damage(folder)
            (folder / WEIGHTS).write_bytes(good)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(3):
            with suppress(IntegrityError):
                assert torch.equal(outputs(load(folder)), honest)
    finally:
        ended.set()
        thread.join()


def test_change_after_loading_has_no_effect(folder):
    model = load(folder)
    honest = outputs(model).clone()
    damage(folder)
    shutil.rmtree(folder)

    assert torch.equal(outputs(model), honest)


def test_file_that_became_a_pipe_is_refused_at_once(folder, monkeypatch):
    genuine = loading._copy_file

    def become_pipe(source: Path, target: Path) -> None:
        if source.name == WEIGHTS:
            source.unlink()
            os.mkfifo(source)
        genuine(source, target)

    monkeypatch.setattr(loading, "_copy_file", become_pipe)

    assert code(folder) == "UNSAFE_PATH"


def test_copy_is_private_and_goes_with_the_model(folder, tmp_path):
    store = tmp_path / "store"
    model = load(folder, store=store)

    private = model.folder.parents[1]
    assert private.parent == store / "tmp"
    assert private.stat().st_mode & 0o077 == 0
    assert model.folder.name == folder.name
    model.save(tmp_path / "saved")
    del model
    gc.collect()
    assert list((store / "tmp").iterdir()) == []


def test_nothing_is_left_behind_if_it_is_refused(folder, tmp_path):
    flip(folder / WEIGHTS)
    code(folder, store=tmp_path / "store")

    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_adapter_brings_a_copy_of_its_base(chain, tmp_path):
    store = chain.copied_store(tmp_path)
    base = Path(shutil.copytree(chain.base, tmp_path / "base"))
    model = load(chain.lora.folder, store=store, parents=[base])
    honest = outputs(Model.load(chain.lora.folder, store=chain.store))

    damage(base)
    assert torch.equal(outputs(model), honest)
    with pytest.raises(SourceError, match="is not at hand"):
        load(chain.lora.folder, store=tmp_path / "empty", parents=[base])


def test_base_swapped_while_it_is_copied_is_noticed(chain, tmp_path, monkeypatch):
    base = Path(shutil.copytree(chain.base, tmp_path / "base"))
    genuine = loading._copy_file

    def change_first(source: Path, target: Path) -> None:
        if source.is_relative_to(base) and source.name == WEIGHTS:
            damage(base)
        genuine(source, target)

    monkeypatch.setattr(loading, "_copy_file", change_first)

    assert code(chain.lora.folder, parents=[base]) == "PARENT_MISMATCH"


def test_base_is_opened_by_the_record_that_the_history_has_of_it(chain, tmp_path):
    base = Path(shutil.copytree(chain.base, tmp_path / "base"))
    honest = load(chain.lora.folder, store=tmp_path / "empty", parents=[base])
    (base / "lineage").mkdir()
    shutil.copy(chain.lora.folder / MANIFEST, base / MANIFEST)

    model = load(chain.lora.folder, store=tmp_path / "empty", parents=[base])
    assert outputs(model).equal(outputs(honest))


def test_base_that_is_not_at_hand_is_named(chain, tmp_path):
    with pytest.raises(SourceError, match="is not at hand"):
        load(chain.lora.folder, store=tmp_path / "empty")


def test_signature_is_demanded(folder, tmp_path):
    public = make_keys(tmp_path / "key")
    policy = Policy(trusted_keys=(str(public),))

    assert code(folder, policy=policy, require=["signed"]) == "UNSIGNED"
    sign(folder, tmp_path / "key")
    assert load(folder, policy=policy, require=["signed"])
    (tmp_path / "policy.yaml").write_text("trusted_keys: [key.pub]\nrequire: [signed]\n")
    assert load(folder, policy=tmp_path / "policy.yaml")
    make_keys(tmp_path / "other")
    sign(folder, tmp_path / "other")
    assert code(folder, policy=policy, require=["signed"]) == "UNTRUSTED_SIGNER"


def test_key_that_came_with_the_model_counts_for_nothing(folder, tmp_path):
    public = make_keys(tmp_path / "key")
    inside = Path(shutil.copy(public, folder / "README.md"))
    sign(folder, tmp_path / "key")

    assert code(folder, policy=Policy(trusted_keys=(str(inside),))) == "UNTRUSTED_SIGNER"


def test_signature_without_anybody_to_trust_cannot_be_demanded(folder):
    with pytest.raises(RecipeError, match="needs somebody to trust"):
        load(folder, require=["signed"])


def test_proof_is_demanded(chain, folder, tmp_path):
    everything = [chain.base, chain.lora.folder, chain.merged.folder]

    assert load(folder, require=["proven"], parents=everything, store=tmp_path / "empty")
    assert code(folder, require=["proven"], store=tmp_path / "empty") == "TIER_NOT_REACHED"
    assert code(folder, require=["replayed"]) == "TIER_NOT_REACHED"


def test_frozen_tensor_that_moved_belies_the_record(chain, folder):
    tensors = Tensors(folder)
    name = next(name for name in tensors if "word_embeddings" in name)
    retouch(folder, {name: tensors[name] + 1e-6})

    assert load(folder)
    assert code(folder, require=["proven"], store=chain.store) == "INCONSISTENT_DERIVATION"


def test_merge_of_another_model_belies_the_record(chain, tmp_path):
    """Said to be made of A, made of B: every target differs by more than rounding."""
    folder = Path(shutil.copytree(chain.merged.folder, tmp_path / "model"))
    tensors = Tensors(folder)
    retouch(folder, {name: tensors[name] * 1.01 for name in tensors if "query.weight" in name})

    assert load(folder)
    assert code(folder, require=["proven"], store=chain.store) == "INCONSISTENT_DERIVATION"


def test_parent_whose_weights_changed_is_noticed(chain, tmp_path):
    store = chain.copied_store(tmp_path)
    base = Path(shutil.copytree(chain.base, tmp_path / "base"))
    Store(store).remember_root(chain.lora.manifest.parents[0].digests.dir_hash, base)
    flip(base / WEIGHTS)

    assert code(chain.lora.folder, store=store) == "PARENT_MISMATCH"


def test_loaded_model_is_a_base_like_any_other(chain, tmp_path):
    store = chain.copied_store(tmp_path)
    loaded = load(chain.lora.folder, store=store)
    child = derive(loaded, Merge(), task=loaded.task, data=chain.rows, runtime=Runtime(store=store))

    assert child.manifest.digests == chain.merged.manifest.digests
    assert child.manifest.parents[0].uri == chain.merged.manifest.parents[0].uri


def test_base_without_a_record_is_not_loaded(tmp_path):
    assert code(tiny_bert(tmp_path / "base")) == "MISSING_LINEAGE"


def test_what_loading_cannot_enforce_is_refused_in_words(folder):
    with pytest.raises(RecipeError, match=r"claims: .*reuselib audit"):
        load(folder, policy=Policy(claims="hold"))


@pytest.mark.parametrize("policy", [Policy(licences=("MIT",)), Policy(min_completeness=1.0)])
def test_licences_and_completeness_are_demanded(folder, policy):
    assert code(folder, policy=policy) == "POLICY_NOT_MET"
    assert load(folder, policy=Policy(min_completeness=0.1))


def test_policy_may_be_a_path_as_text_but_not_from_the_folder(folder, tmp_path):
    (tmp_path / "policy.yaml").write_text("min_completeness: 1\n")

    assert code(folder, policy=str(tmp_path / "policy.yaml")) == "POLICY_NOT_MET"
    (folder / "policy.yaml").write_text("require: []\n")
    with pytest.raises(RecipeError, match="lies in the model folder"):
        load(folder, policy=folder / "policy.yaml")


def test_one_tier_as_text_is_no_list_of_tiers(folder):
    with pytest.raises(
        RecipeError, match=r"require: expected a list of tiers, such as `\['proven'\]`"
    ):
        load(folder, require="proven")
