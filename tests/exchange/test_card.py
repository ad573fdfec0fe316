from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from golden import CHILDREN, golden
from reuselib.exchange.card import RELATIONS, card, front
from reuselib.exchange.dossier import Dossier
from reuselib.lineage.definition import RELATIONS as OURS
from reuselib.lineage.descriptors import Parent
from reuselib.model.figures import Figures


@pytest.fixture(scope="module")
def lora():
    return Dossier.read(golden("lora"))


@pytest.fixture(scope="module")
def tuned():
    return Dossier.read(golden("finetune"))


def parts(text: str) -> tuple[dict, str]:
    """Front matter, as plain YAML says, and page."""
    _, matter, page = text.split("---\n", 2)
    return yaml.safe_load(matter), page


def begun_with(dossier: Dossier, uri: str) -> Dossier:
    """The same model, made of another base whose history is not at hand."""
    definition = dossier.manifest.definition
    base, *others = definition.dependencies
    moved = replace(definition, dependencies=(replace(base, uri=uri), *others))
    return replace(dossier, manifest=replace(dossier.manifest, definition=moved), ancestors={})


def measured_on(dossier: Dossier, uri: str) -> Dossier:
    definition = dossier.manifest.definition
    items = tuple(
        replace(item, uri=uri) if item.role == "dataset" else item
        for item in definition.dependencies
    )
    moved = replace(definition, dependencies=items)
    return replace(dossier, manifest=replace(dossier.manifest, definition=moved))


class TestFrontMatter:
    def test_it_says_what_hubs_ask(self, lora):
        figures = lora.figures

        matter, _ = parts((golden("lora") / "README.md").read_text(encoding="utf-8"))

        assert matter == {
            "base_model": "file:base",
            "base_model_relation": "adapter",
            "library_name": "peft",
            "pipeline_tag": "text-classification",
            "license": "apache-2.0",
            "metrics": sorted(figures.after),
            "tags": ["reuselib", "lora"],
            "model-index": [
                {
                    "name": "base-lora",
                    "results": [
                        {
                            "task": {"type": "text-classification"},
                            "dataset": {"name": "file:rows", "type": "file:rows", "split": "test"},
                            "metrics": [
                                {"type": name, "value": pytest.approx(figures.after[name])}
                                for name in sorted(figures.after)
                            ],
                        }
                    ],
                }
            ],
            "lineage": {
                "file": "lineage/manifest.json",
                "statementSha256": lora.manifest.sha256,
            },
        }

    @pytest.mark.parametrize("name", CHILDREN)
    def test_the_library_of_the_hub_keeps_all_of_it(self, name):
        path = golden(name) / "README.md"
        before, _ = parts(path.read_text(encoding="utf-8"))

        kept = ModelCard.load(path)
        after, _ = parts(str(ModelCard(str(kept))))

        assert isinstance(kept.data, ModelCardData)
        assert kept.data.base_model == before["base_model"]
        results = kept.data.eval_results or ()
        assert {each.metric_type: each.metric_value for each in results} == pytest.approx(
            dict(Dossier.read(golden(name)).figures.after)
        )
        # of a result, the library spells the empty fields of its own differently
        assert {key: after[key] for key in before if key != "model-index"} == {
            key: before[key] for key in before if key != "model-index"
        }
        assert after.get("model-index", [{}])[0].get("name") == (
            before["model-index"][0]["name"] if results else None
        )

    @pytest.mark.parametrize("name", ["fold", "finetune", "cut", "distill", "sparse"])
    def test_a_whole_child_is_a_finetune_for_transformers_of_the_first_base(self, name):
        """A hub's `merge` is for several models; the base is the root, not the step before."""
        matter, page = parts((golden(name) / "README.md").read_text(encoding="utf-8"))

        assert (matter["base_model_relation"], matter["library_name"]) == (
            "finetune",
            "transformers",
        )
        assert matter["base_model"] == "file:base"
        assert f"made from `{Dossier.read(golden(name)).manifest.parents[0].uri}`" in page

    def test_a_merge_of_several_models_names_all_of_them(self):
        matter, page = parts((golden("average") / "README.md").read_text(encoding="utf-8"))

        assert matter["base_model"] == ["file:base", "file:twin"]
        assert matter["base_model_relation"] == "merge"
        assert "model-index" not in matter
        assert "Begun with `file:base` and `file:twin`" in page

    def test_a_quantized_child_is_one_and_what_was_cut_or_taught_has_a_tag(self):
        matters = {name: front(Dossier.read(golden(name))) for name in ("int8", "cut", "distill")}

        assert matters["int8"]["base_model_relation"] == "quantized"
        assert matters["cut"]["tags"] == ["reuselib", "prune", "pruned"]
        assert matters["distill"]["tags"] == ["reuselib", "distill", "distilled"]

    def test_a_teacher_is_no_base(self, lora):
        parent = lora.manifest.parents[0]
        teacher = Parent("teacher-1", "teacher", "file:t", parent.digests, parent.manifest_sha256)
        definition = lora.manifest.definition
        taught = replace(
            definition, dependencies=(*definition.dependencies, *teacher.descriptors())
        )
        dossier = replace(lora, manifest=replace(lora.manifest, definition=taught))

        assert front(dossier)["base_model"] == "file:base"
        assert front(dossier)["base_model_relation"] == "adapter"

    def test_every_relation_has_a_word_of_the_hub(self, lora):
        words = {}
        for relation in OURS:
            definition = replace(lora.manifest.definition, relation=relation)
            dossier = replace(lora, manifest=replace(lora.manifest, definition=definition))
            words[relation] = front(dossier)["base_model_relation"]

        assert set(words.values()) == {"adapter", "quantized", "finetune"}
        assert set(RELATIONS) <= set(OURS)
        assert words["prune"] == words["distill"] == "finetune"

    def test_a_base_and_rows_of_the_hub_are_named_as_the_hub_does(self, lora):
        dossier = begun_with(lora, "pkg:huggingface/acme/bert@" + "a" * 40)

        matter, page = parts(card(measured_on(dossier, "hf://datasets/acme/films@" + "b" * 40)))

        assert matter["base_model"] == "acme/bert"
        assert matter["datasets"] == ["acme/films"]
        assert matter["model-index"][0]["results"][0]["dataset"]["type"] == "acme/films"
        assert "a" * 40 in page

    def test_a_licence_is_told_in_the_form_of_the_hub_and_only_if_recorded(self, lora):
        licensed = replace(lora.manifest, annotations={"license": "Llama3.1"})
        silent = replace(lora.manifest, annotations={})

        assert front(replace(lora, manifest=licensed))["license"] == "llama3.1"
        assert "license" not in front(replace(lora, manifest=silent))

    @pytest.mark.parametrize(
        "root",
        [
            'file:a "b": c',
            "file:a\nb: c",
            "file:- [x]",
            "file:modèle-été",
            "file:\U0001f600",
            "file:\x7f\x85\u2028",
            "file:\\ud83d",
        ],
    )
    def test_no_name_breaks_it(self, lora, root):
        matter, _ = parts(card(begun_with(lora, root)))

        assert matter["base_model"] == root
        assert set(matter) == {*parts(card(lora))[0]}

    @pytest.mark.parametrize("value", [1e-05, 1e16, 1.5e-7, -1e-9, 0.25, 3])
    def test_a_number_stays_a_number(self, lora, value):
        figures = replace(lora.figures, after={"loss": value})

        matter, _ = parts(card(replace(lora, figures=figures)))

        metric = matter["model-index"][0]["results"][0]["metrics"][0]
        assert metric == {"type": "loss", "value": value}
        assert isinstance(metric["value"], int | float)


class TestPage:
    def test_it_says_what_was_measured_and_what_identifies_the_model(self, tuned):
        manifest, figures = tuned.manifest, tuned.figures

        _, page = parts(card(tuned))

        assert f"| dirHash | `{manifest.digests.dir_hash}` |" in page
        assert f"| tensorHash1 | `{manifest.digests.tensor_hash}` |" in page
        assert f"| parent's dirHash | `{manifest.parents[0].digests.dir_hash}` |" in page
        assert "| seed | 0 |" in page
        after, before = figures.after["accuracy"], figures.before["accuracy"]
        assert (
            f"| accuracy | {after:.4f}, {before:.4f} before this step (measured on 16 test rows) |"
            in page
        )
        [configuration] = [line for line in page.splitlines() if line.startswith("| configuration")]
        assert json.loads(configuration.split("`")[1]) == manifest.definition.recipe

    def test_every_ancestor_is_listed_the_nearest_first(self):
        _, page = parts((golden("distill") / "README.md").read_text(encoding="utf-8"))

        listed = [line for line in page.splitlines() if line.startswith("- ")]
        line = [golden(name) for name in ("cut", "finetune")]
        expected = [Dossier.read(folder).manifest.digests.dir_hash for folder in line]
        expected.append(Dossier.read(line[-1]).manifest.parents[0].digests.dir_hash)
        assert [each.rpartition("`")[0][-64:] for each in listed] == expected

    def test_the_figures_are_those_of_this_step_in_the_right_order(self, tuned):
        figures = replace(tuned.figures, before={"accuracy": 0.25}, after={"accuracy": 0.75})

        assert "| accuracy | 0.7500, 0.2500 before this step" in card(
            replace(tuned, figures=figures)
        )

    def test_what_was_not_measured_is_not_claimed(self, tuned):
        matter, page = parts(card(replace(tuned, figures=Figures())))

        assert "measured" not in page
        assert "accuracy" not in page.replace(json.dumps(tuned.manifest.definition.recipe), "")
        assert not {"metrics", "model-index"} & set(matter)

    def test_cost_drift_and_intervals_are_on_the_page(self, tuned):
        figures = tuned.figures

        _, page = parts(card(tuned))

        low, high = figures.intervals["after"]["accuracy"]
        assert f"| accuracy, 95 % interval | {low:.4f} to {high:.4f} |" in page
        assert f"| parameters | {figures.cost['num_parameters']:,} |" in page
        assert f"| operations for one row | {figures.cost['flops']:,} |" in page
        assert f"| rows answered like the parent | {figures.drift['agreement']:.4g} |" in page
        assert f"| calibration error | {figures.quality['ece']:.4f} |" in page

    def test_a_time_that_means_nothing_is_not_on_the_page(self, tuned):
        shaken = replace(tuned.figures, cost={**tuned.figures.cost, "latency_p50": "unstable"})

        _, page = parts(card(replace(tuned, figures=shaken)))

        assert "milliseconds for one row" not in page

    def test_no_name_makes_markup(self, tuned):
        hostile = replace(tuned.manifest, name="# x\n| <script>`[a](b)`")

        _, page = parts(card(replace(begun_with(tuned, "file:`|\n# y"), manifest=hostile)))

        assert "<script>" not in page.replace(r"\<script", "")
        assert [line for line in page.splitlines() if line.startswith("#")] == [
            r"# # x \| \<script\>\`\[a\](b)\`"
        ]
