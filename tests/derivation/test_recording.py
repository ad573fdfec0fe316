"""What the record of a child says, and what it must never say."""

from __future__ import annotations

import getpass
import json
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from chains import LORA, SHORT, TUNE, run
from reuselib.adapter import ModelRef
from reuselib.adapters.merge import Merge
from reuselib.data import Data
from reuselib.exchange.card import card
from reuselib.exchange.dossier import Dossier
from reuselib.lineage.chain import read_ancestors, walk
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.verify import verify
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_bert

STEPS = ("lora", "merged", "tuned")


@pytest.mark.parametrize("step", STEPS)
def test_the_record_verifies(chain, step):
    report = verify(getattr(chain, step).folder)

    assert report.ok, report.problems


@pytest.mark.parametrize("step", STEPS)
def test_the_card_is_the_one_that_the_record_gives(chain, step):
    folder = getattr(chain, step).folder

    assert (folder / "README.md").read_text(encoding="utf-8") == card(Dossier.read(folder))


class TestDefinition:
    @pytest.fixture
    def definition(self, chain):
        return chain.lora.manifest.definition

    def test_the_recipe_has_every_field_with_its_default(self, definition):
        assert definition.recipe == LORA.describe()["lora"]
        assert definition.recipe["use_dora"] is False
        assert definition.recipe["lora_alpha"] is None
        assert definition.recipe["fit"]["optimizer"]["betas"] == [0.9, 0.999]
        assert definition.recipe["fit"]["learning_rate"] == SHORT.learning_rate

    def test_the_task_has_the_labels_that_the_rows_decided(self, definition):
        assert definition.task == TextClassification(labels=("bad", "good")).describe()

    def test_kind_relation_and_seed_are_there(self, chain, definition):
        assert (definition.adapter, definition.relation, definition.seed) == ("lora", "adapter", 0)
        assert [getattr(chain, step).manifest.relation for step in STEPS] == [
            "adapter",
            "merge",
            "finetune",
        ]

    def test_another_seed_is_recorded(self, chain, tmp_path):
        from reuselib.derivation.derive import Runtime
        from reuselib.derivation.execution import execute

        made = execute(chain.plan((LORA,), store=tmp_path / "store", seed=11), Runtime())

        assert made.children[0].manifest.definition.seed == 11
        assert made.children[0].manifest.digests != chain.lora.manifest.digests

    def test_rows_are_named_by_their_content(self, chain, definition):
        [rows] = [each for each in definition.dependencies if each.role == "dataset"]

        assert rows.digest == {"rowsHash1": chain.rows.digest}
        assert rows.uri == "memory:"
        assert rows.annotations["splits"]["test"]["rows"] == 16
        assert rows.annotations["splits"]["train"]["rows"] == 32
        assert definition.data == {"source": "memory:"}

    def test_rows_of_files_are_recorded_pinned_and_by_name_only(self, chain, tmp_path):
        data = write_rows(tmp_path / "rows", 16)

        definition = (
            run(LORA, chain.base, tmp_path / "store", data=data).children[0].manifest.definition
        )

        assert definition.data == {
            "source": "file:rows",
            "subset": None,
            "revision": None,
            "train": "train",
            "validation": None,
            "test": "test",
            "holdout": None,
        }

    def test_the_parents_are_named_by_weights_and_by_manifest(self, chain):
        base = chain.execution.plan.base
        for child, parent, uri in (
            (chain.lora, base.manifest, "file:base"),
            (chain.merged, chain.lora.manifest, f"urn:reuselib:model:{chain.lora.folder.name}"),
            (chain.tuned, chain.merged.manifest, f"urn:reuselib:model:{chain.merged.folder.name}"),
        ):
            [recorded] = child.manifest.parents
            assert (recorded.role, recorded.uri) == ("base", uri)
            assert recorded.digests == parent.digests
            assert recorded.manifest_sha256 == parent.sha256
        assert base.manifest.digests == take_inventory(chain.base).digests

    def test_a_leaf_is_traced_to_its_root_from_its_own_folder(self, chain):
        found = walk(chain.tuned.manifest, read_ancestors(chain.tuned.folder))

        expected = [chain.merged.manifest, chain.lora.manifest, chain.execution.plan.base.manifest]
        assert list(found.manifests.values()) == expected
        assert found.missing == ()

    def test_names_tell_the_way(self, chain):
        assert chain.tuned.manifest.name == "base-lora-merge-finetune"


class TestInternal:
    def test_what_loading_and_proving_need_is_there(self, chain):
        internal = chain.lora.manifest.definition.internal

        assert internal.derivation_id == chain.lora.folder.name
        assert internal.form == "adapter"
        assert internal.requires == (chain.execution.plan.base.ref.digest,)
        assert internal.fresh == ("classifier.bias", "classifier.weight")
        assert internal.prefix == "bert."
        assert internal.dropped == ()
        assert internal.rebuild == ()
        assert len(internal.structure["targets"]) == 2 * 6 + 1
        assert (internal.dtype, internal.world_size) == ("float32", 1)

    def test_a_whole_child_needs_nobody_and_has_no_new_parameters(self, chain):
        for child in (chain.merged, chain.tuned):
            internal = child.manifest.definition.internal
            assert (internal.form, internal.requires, internal.fresh, internal.prefix) == (
                "dense",
                (),
                (),
                "",
            )

    def test_the_way_it_ran_is_settled(self, chain):
        internal = chain.tuned.manifest.definition.internal

        assert internal.device == ("cuda" if torch.cuda.is_available() else "cpu")
        assert internal.determinism == ("none" if torch.cuda.is_available() else "strict")
        assert internal.facts["precision"] in ("fp32", "bf16", "fp16")
        assert not {"device", "num_processes"} & internal.facts.keys()


def test_circumstances_are_those_of_the_run(chain):
    details = chain.tuned.manifest.details

    assert details.versions["torch"] == torch.__version__
    assert {"python", "reuselib", "transformers"} <= details.versions.keys()
    assert details.started <= details.finished <= datetime.now(UTC)
    assert details.invocation_id.startswith("urn:uuid:")
    identifiers = {getattr(chain, step).manifest.details.invocation_id for step in STEPS}
    assert len(identifiers) == len(STEPS)


class TestMetrics:
    """Against what transformers and a few lines of torch say about the same folders."""

    def plain(self, module, folder, rows):
        from torch.nn.functional import cross_entropy

        from chains import plain_text_logits

        logits = plain_text_logits(module, folder, [row["text"] for row in rows])
        targets = torch.tensor([("bad", "good").index(row["label"]) for row in rows])
        right = (logits.argmax(-1) == targets).float().mean().item()
        return {"accuracy": right, "loss": cross_entropy(logits, targets).item()}

    def stored(self, child):
        return json.loads((child.folder / "lineage/metrics.json").read_text())

    def test_before_and_after_can_be_measured_again(self, chain):
        """`before` of the last step is `after` of the one before it."""
        rows, stored = chain.rows.test, self.stored(chain.tuned)
        for name, child in (("before", chain.merged), ("after", chain.tuned)):
            module = AutoModelForSequenceClassification.from_pretrained(child.folder)
            plain = self.plain(module, child.folder, rows)

            assert {key: stored[name][key] for key in plain} == pytest.approx(plain, rel=1e-6)
        assert stored["before"] != stored["after"]
        assert stored["before"] == pytest.approx(self.stored(chain.merged)["after"])

    def test_everything_else_is_there(self, chain):
        stored = self.stored(chain.tuned)

        assert stored["metric"] == "accuracy"
        assert stored["test"]["rows"] == len(chain.rows.test)
        assert stored["test"]["digest"] == chain.rows.facts["splits"]["test"]["digest"]
        assert stored["step"]["num_steps"] == 2
        assert stored["step"]["train_loss"] > 0
        assert (
            stored["cost"]["num_bytes"] == (chain.tuned.folder / "model.safetensors").stat().st_size
        )
        assert 0 < stored["cost"]["num_trainable"] < stored["cost"]["num_parameters"]
        assert stored["cost"]["seconds"] > 0

    def test_the_merge_records_how_far_outputs_moved(self, chain):
        stored = self.stored(chain.merged)

        assert 0 <= stored["step"]["drift_max_abs"] < 1e-5
        assert stored["cost"]["num_trainable"] == 0

    def test_what_a_simple_method_reaches_is_beside_it_where_there_is_one(self, chain):
        pytest.importorskip("sklearn")

        reference = self.stored(chain.lora)["reference"]

        assert reference.keys() == {"name", "accuracy"}
        assert 0.7 < reference["accuracy"] <= 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Everything from paths that can be recognised."""
    private = tmp_path_factory.mktemp("private-place")
    base, other = tiny_bert(private / "base"), tiny_bert(private / "other", head=True)
    data = Data(source=write_rows(private / "rows", 16).source)
    made = run((LORA, Merge(), TUNE), base, private / "store", data=data)
    average = run(
        Merge(models=(ModelRef(str(other)),)),
        str(tiny_bert(private / "third", head=True, seed=2)),
        private / "store",
        data=None,
        task=TextClassification(labels=("bad", "good")),
    )
    return private, [child.folder for child in (*made.children, *average.children)]


class TestPrivacy:
    def test_no_file_names_a_place_a_user_or_a_host(self, folders):
        private, children = folders
        words = {
            str(private),
            "private-place",
            str(Path.home()) + "/",
            platform.node(),
            f"/{getpass.getuser()}/",
        }
        words = {word.encode() for word in words if len(word) > 3}

        for folder in children:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    content = path.read_bytes()
                    assert not [word for word in words if word in content], path.relative_to(folder)

    def test_the_search_would_find_one(self, folders):
        private, children = folders

        assert (private.name.encode()) in (str(children[0])).encode()
        assert len(children) == 4


@pytest.fixture(scope="module")
def soup(chain, tmp_path_factory):
    """An average of three models: a child in the store, a folder, and the base; without any rows."""
    place = tmp_path_factory.mktemp("soup")
    folder = tiny_bert(place / "friend", head=True, seed=3)
    task = TextClassification(labels=("bad", "good"))
    adapter = Merge(
        models=(ModelRef(f"store:{chain.merged.folder.name}"), ModelRef(str(folder))),
        weights=(0.5, 0.3, 0.2),
    )
    base = ModelRef(f"store:{chain.tuned.folder.name}")
    return folder, run(adapter, base, chain.store, data=None, task=task).children[0]


class TestOtherModels:
    """A step that names models besides its base."""

    def test_they_are_parents_by_both_digests(self, soup, chain):
        folder, child = soup

        base, first, second = child.manifest.parents
        assert [(each.name, each.role) for each in (base, first, second)] == [
            ("base", "base"),
            ("merge-source-1", "merge-source"),
            ("merge-source-2", "merge-source"),
        ]
        assert base.manifest_sha256 == chain.tuned.manifest.sha256
        assert first.digests == chain.merged.manifest.digests
        assert first.manifest_sha256 == chain.merged.manifest.sha256
        assert (second.uri, second.digests) == ("file:friend", take_inventory(folder).digests)

    def test_the_recipe_names_them_pinned(self, soup, chain):
        folder, child = soup

        models = child.manifest.definition.recipe["models"]
        assert [each["source"] for each in models] == [
            f"store:{chain.merged.folder.name}",
            "./friend",
        ]
        assert [each["digest"] for each in models] == [
            chain.merged.manifest.digests.dir_hash,
            take_inventory(folder).digests.dir_hash,
        ]

    def test_their_history_is_carried_too(self, soup, chain):
        _, child = soup

        found = walk(child.manifest, read_ancestors(child.folder))
        names = {manifest.name for manifest in found.manifests.values()}
        assert found.missing == ()
        assert names == {
            "base",
            "base-lora",
            "base-lora-merge",
            "base-lora-merge-finetune",
            "friend",
        }

    def test_without_rows_nothing_is_claimed_to_be_measured(self, soup):
        _, child = soup
        stored = json.loads((child.folder / "lineage/metrics.json").read_text())

        assert (stored["metric"], stored["before"], stored["after"], stored["test"]) == (
            "",
            {},
            {},
            {},
        )
        assert child.manifest.definition.data is None
        assert not [
            each for each in child.manifest.definition.dependencies if each.role == "dataset"
        ]
        assert verify(child.folder).ok

    def test_its_weights_are_the_average(self, soup, chain):
        from safetensors.torch import load_file

        folder, child = soup
        sources = [
            load_file(each / "model.safetensors")
            for each in (chain.tuned.folder, chain.merged.folder, folder)
        ]

        for name, value in load_file(child.folder / "model.safetensors").items():
            wanted = sum(
                share * source[name] for share, source in zip((0.5, 0.3, 0.2), sources, strict=True)
            )
            assert torch.allclose(value, wanted, atol=1e-6), name


def test_the_roots_are_the_ends_of_the_lines_of_bases(chain, tmp_path):
    """Of every model that was merged, and never the step before."""
    other = ModelRef(f"store:{chain.merged.folder.name}")
    base = tiny_bert(tmp_path / "own-root", head=True)

    made = run(
        (replace(TUNE, train=("head",)), Merge(models=(other,))), base, chain.store, data=chain.rows
    )

    page = (made.children[-1].folder / "README.md").read_text()
    assert 'base_model: ["file:own-root", "file:base"]' in page


class TestLicences:
    """Terms go down the chain as far as somebody stated them, and with who did."""

    @pytest.fixture
    def children(self, chain, tmp_path):
        base = tiny_bert(tmp_path / "base")
        (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
        return run((LORA, Merge()), base, tmp_path / "store", data=chain.rows).children

    def test_the_card_of_the_base_is_read_and_a_child_inherits(self, children):
        for child, source in zip(children, ("declared", "inherited"), strict=True):
            [parent] = child.manifest.parents
            assert parent.annotations == {"license": "apache-2.0", "license_source": source}
            assert child.manifest.annotations == {
                "license": "apache-2.0",
                "license_source": "inherited",
            }
            assert verify(child.folder).ok

    def test_without_a_word_nothing_is_recorded(self, chain):
        assert chain.lora.manifest.annotations == {}
        assert chain.lora.manifest.parents[0].annotations == {}

    def test_parents_of_other_terms_leave_the_child_without(self, chain, tmp_path):
        folders = [tiny_bert(tmp_path / name, head=True, seed=n) for n, name in enumerate("ab")]
        for folder, licence in zip(folders, ("mit", "cc-by-nc-4.0"), strict=True):
            (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
        average = Merge(models=(ModelRef(str(folders[1])),), weights=(0.5, 0.5))
        task = TextClassification(labels=("bad", "good"))

        [child] = run(average, folders[0], tmp_path / "store", data=None, task=task).children

        assert [parent.annotations["license"] for parent in child.manifest.parents] == [
            "mit",
            "cc-by-nc-4.0",
        ]
        assert child.manifest.annotations == {}
