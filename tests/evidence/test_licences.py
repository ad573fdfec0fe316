from __future__ import annotations

import json
import shutil

import pytest

from chains import LORA, run
from reuselib.adapter import ModelRef
from reuselib.adapters.merge import Merge
from reuselib.evidence.licences import read_licences, unstated_rows
from reuselib.lineage.chain import read_ancestors, walk
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.policy import Policy
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert


def licensed(folder, licence: str, **options):
    base = tiny_bert(folder, **options)
    if licence:
        (base / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return base


def read(folder, policy=None):
    manifest = Manifest.read(folder)
    return read_licences(folder, manifest, walk(manifest, read_ancestors(folder)), policy)


def relicense(folder, licence: str) -> None:
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")


@pytest.fixture(scope="module")
def merged(tmp_path_factory, chain):
    folder = tmp_path_factory.mktemp("llama")
    base = licensed(folder / "base", "llama3.1")
    return run((LORA, Merge()), base, folder / "store", data=chain.rows).children[1].folder


@pytest.fixture
def child(merged, tmp_path):
    return shutil.copytree(merged, tmp_path / "child")


def test_terms_go_down_and_are_kept(child):
    found = read(child)

    assert found.conflicts == ()
    assert [(each.relation, each.parent_licence, each.child_licence) for each in found.edges] == [
        ("derives", "llama3.1", "llama3.1"),
        ("adapts", "llama3.1", "llama3.1"),
    ]
    assert any("restrictions" in each for each in found.obligations)


def test_drifting_to_a_permissive_licence_is_a_conflict(child):
    relicense(child, "apache-2.0")

    [edge] = read(child).conflicts

    assert "llama3.1" in edge.conflict
    assert "apache-2.0" in edge.conflict


def test_a_step_without_a_word_hides_nothing(tmp_path, chain):
    """The terms of the base reach past a child that states none."""
    friend = licensed(tmp_path / "friend", "mit", head=True, seed=1)
    base = licensed(tmp_path / "base", "gpl-3.0", head=True)
    average = Merge(models=(ModelRef(str(friend)),), weights=(0.5, 0.5))
    task = TextClassification(labels=("bad", "good"))
    child = run((average, LORA), base, tmp_path / "store", data=chain.rows, task=task).children[1]
    assert child.manifest.annotations == {}

    [edge, *_] = read(child.folder).edges

    assert edge.parent_licence == "gpl-3.0 AND mit"


def test_weights_whose_terms_cannot_go_together_are_a_conflict(tmp_path):
    friend = licensed(tmp_path / "friend", "gpl-3.0", head=True, seed=1)
    base = licensed(tmp_path / "base", "cc-by-nc-4.0", head=True)
    average = Merge(models=(ModelRef(str(friend)),), weights=(0.5, 0.5))
    task = TextClassification(labels=("bad", "good"))
    [child] = run(average, base, tmp_path / "store", data=None, task=task).children

    conflicts = read(child.folder).conflicts

    assert [each.parent for each in conflicts] == ["base (base) and friend (merge-source)"]


def test_nothing_stated_is_a_doubt(chain):
    found = read(chain.merged.folder)

    assert all("unknown is not permissive" in each.doubt for each in found.edges)
    assert len(unstated_rows(chain.merged.manifest, walk(chain.merged.manifest, {}))) == 1


class TestPolicy:
    def test_what_it_allows_is_accepted(self, child):
        assert read(child, Policy(licences=("Llama3.1",))).refused == ()

    def test_any_is_accepted_without_a_word(self, child):
        assert read(child, Policy()).refused == ()

    def test_what_it_does_not_allow_is_refused_anywhere_in_the_history(self, child):
        relicense(child, "mit")

        refused = read(child, Policy(licences=("MIT",))).refused

        assert len(refused) == 2  # the adapter, and the base
        assert all("llama3.1" in each for each in refused)

    def test_nothing_stated_is_not_allowed(self, chain):
        refused = read(chain.lora.folder, Policy(licences=("MIT",))).refused

        assert all("states no licence" in each for each in refused)
        assert len(refused) == 2


def test_it_is_labelled_as_advice(child):
    written = read(child).to_json()

    assert "not legal advice" in written["notice"]
    json.dumps(written)
