from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from chains import LORA, run
from reuselib.adapter import ModelRef
from reuselib.errors import SourceError, StoreError
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.model import Model
from reuselib.model.reference import reference
from reuselib.model.source import resolve
from reuselib.tasks.module import ModuleTask
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_cnn

TASK = TextClassification(labels=("bad", "good"))


def criterion(outputs, targets):
    from torch.nn import functional

    return functional.cross_entropy(outputs, targets)


MODULE_TASK = ModuleTask(network=tiny_cnn, criterion=criterion)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_reference_is_taken_as_it_is(store):
    ref = ModelRef("org/name", revision="main")

    assert reference(ref, TASK, store) is ref


def test_text_is_a_source_and_a_path_a_folder(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert reference("org/name", TASK, store) == ModelRef("org/name")
    assert reference(Path("org/name"), TASK, store) == ModelRef(str(tmp_path / "org/name"))


def test_a_derived_model_is_named_by_its_id(chain):
    model = chain.execution.model()

    ref = reference(model, TASK, Store(chain.store))

    assert ref == ModelRef(
        f"store:{chain.tuned.folder.name}", digest=model.manifest.digests.dir_hash
    )


def test_a_derived_model_is_found_from_another_store_too(chain, store):
    model = chain.execution.model()

    pinned = resolve(reference(model, TASK, store), store)

    assert pinned.folder == chain.tuned.folder
    assert pinned.manifest == model.manifest


def test_an_opened_folder_is_named_by_where_it_is(chain, store, tmp_path, monkeypatch):
    monkeypatch.chdir(chain.base.parent)
    model = Model.load("./base", task=TASK, store=store.path)
    monkeypatch.chdir(tmp_path)

    pinned = resolve(reference(model, TASK, Store(tmp_path / "other")), Store(tmp_path / "other"))

    assert pinned.folder == chain.base
    assert pinned.uri == "file:base"


def test_a_model_of_the_hub_stays_one(chain, store, tmp_path, monkeypatch):
    """Its folder holds links, and its name is what a record must say."""
    commit = "c" * 40
    repo = tmp_path / "hub/models--acme--bert"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (repo / part).mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    for path in chain.base.iterdir():
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        (repo / "snapshots" / commit / path.name).symlink_to(f"../../blobs/{blob.name}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    model = Model.load("acme/bert", task=TASK, store=store.path)
    child = run(LORA, model, store.path, data=chain.rows).children[0]

    assert model.ref.revision == commit
    assert child.manifest.parents[0].uri == f"pkg:huggingface/acme/bert@{commit}"
    assert child.folder.name == chain.lora.folder.name


class TestModule:
    def test_its_weights_are_kept_in_the_store_and_it_is_named_by_digest(self, store):
        module = tiny_cnn()

        ref = reference(module, MODULE_TASK, store)
        pinned = resolve(ref, store)

        assert ref.source == "module:Sequential"
        assert pinned.ref == ref
        assert pinned.uri == "module:Sequential"
        kept, state = Tensors(pinned.folder), module.state_dict()
        assert all(kept[name].equal(state[name]) for name in kept)
        assert set(kept) == set(state)

    def test_the_same_weights_are_the_same_base(self, store):
        module = tiny_cnn()

        refs = [reference(module, MODULE_TASK, store) for _ in range(2)]
        other = reference(tiny_cnn(), MODULE_TASK, store)

        assert refs[0] == refs[1]
        assert other.digest != refs[0].digest
        assert list((store.path / "tmp").iterdir()) == []

    def test_an_unwritable_store_is_an_error_in_words(self, tmp_path):
        (tmp_path / "file").write_text("")

        with pytest.raises(StoreError, match="cannot write"):
            reference(tiny_cnn(), MODULE_TASK, Store(tmp_path / "file"))


@pytest.mark.parametrize("base", [None, 3, ["./folder"], {"source": "x"}])
def test_what_is_no_model_is_refused_by_its_type(store, base):
    with pytest.raises(SourceError, match=f"type {type(base).__name__} is no model"):
        reference(base, TASK, store)
