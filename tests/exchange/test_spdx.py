from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import spdx_python_model

from golden import CHILDREN, golden
from reuselib.errors import ReuseError
from reuselib.exchange.dossier import Dossier
from reuselib.exchange.spdx import spdx


@pytest.fixture(scope="module")
def distilled():
    return Dossier.read(golden("distill"))


class Graph:
    """A document as SPDX's own bindings read it, which refuse what the model of 3.0.1 does not allow."""

    def __init__(self, document: bytes) -> None:
        self.raw = json.loads(document)
        self.model, self.objects = spdx_python_model.load_data(self.raw)
        self.elements = {each["spdxId"]: each for each in self.raw["@graph"] if "spdxId" in each}

    def of(self, kind: str) -> list[dict]:
        return [each for each in self.elements.values() if each["type"] == kind]

    def links(self, how: str) -> set[tuple[str, str]]:
        """By name of the two elements."""
        return {
            (self.elements[link["from"]]["name"], self.elements[target]["name"])
            for link in self.of("Relationship")
            if link["relationshipType"] == how
            for target in link["to"]
        }


def entries(items: list[dict]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in items}


@pytest.mark.parametrize("name", CHILDREN)
class TestEveryChild:
    def test_the_bindings_of_the_standard_read_it_and_miss_nothing(self, name):
        graph = Graph(spdx(Dossier.read(golden(name))))

        # nothing is referred to that is not there, and writing it again checks what every class must have
        assert graph.objects.missing_ids == set()
        again = graph.model.JSONLDSerializer().serialize_data(graph.objects)
        written = {each["spdxId"] for each in again["@graph"] if "spdxId" in each}
        assert written == set(graph.elements)

    def test_every_element_is_in_the_document_once(self, name):
        graph = Graph(spdx(Dossier.read(golden(name))))
        [document], [sbom] = graph.of("SpdxDocument"), graph.of("software_Sbom")

        assert Counter(document["element"]) == Counter(graph.elements.keys() - {document["spdxId"]})
        assert document["rootElement"] == [sbom["spdxId"]]
        assert graph.elements[sbom["rootElement"][0]]["type"] == "ai_AIPackage"
        # the first creation info serves all
        assert {each["creationInfo"] for each in graph.elements.values()} == {"_:creation"}


class TestContent:
    def test_the_model_says_how_it_was_made_and_what_it_reaches(self, distilled):
        graph = Graph(spdx(distilled))
        model = graph.elements[graph.of("software_Sbom")[0]["rootElement"][0]]

        assert model["name"] == distilled.manifest.name
        assert model["software_packageVersion"] == distilled.manifest.derivation_id
        assert entries(model["ai_hyperparameter"])["losses.logits"] == "0.5"
        assert entries(model["ai_hyperparameter"])["seed"] == "0"
        told = {name: float(value) for name, value in entries(model["ai_metric"]).items()}
        assert told == dict(distilled.figures.after)
        digests = {each["comment"]: each["hashValue"] for each in model["verifiedUsing"]}
        assert digests == distilled.manifest.digests.to_json()

    def test_it_descends_from_what_it_was_made_of_and_not_from_its_teacher(self, distilled):
        graph = Graph(spdx(distilled))
        base, teacher = distilled.manifest.parents
        made_of, taught_by = (
            distilled.ancestors[parent.manifest_sha256].name for parent in (base, teacher)
        )

        links = graph.links("descendantOf")

        assert (distilled.manifest.name, made_of) in links
        assert (distilled.manifest.name, taught_by) not in links
        assert (made_of, taught_by) in links  # which here is what was cut
        build = graph.of("build_Build")[0]["name"]
        assert {(build, made_of), (build, taught_by)} <= graph.links("hasInput")
        assert graph.links("hasOutput") == {(build, distilled.manifest.name)}

    @pytest.mark.parametrize(
        ("name", "trained"), [("distill", True), ("lora", True), ("cut", False), ("int8", False)]
    )
    def test_rows_that_it_learned_from_are_told_from_rows_it_was_measured_on(self, name, trained):
        graph = Graph(spdx(Dossier.read(golden(name))))
        model = Dossier.read(golden(name)).manifest.name

        assert graph.links("trainedOn") == ({(model, "file:rows")} if trained else set())
        assert graph.links("testedOn") == {(model, "file:rows")}
        [rows] = graph.of("dataset_DatasetPackage")
        assert rows["dataset_datasetType"] == ["text"]
        assert rows["dataset_datasetSize"] == 64

    def test_files_and_manifest_are_bound_by_digest(self, distilled):
        graph = Graph(spdx(distilled))
        found = {each["name"]: each["verifiedUsing"][0]["hashValue"] for each in graph.of("software_File")}  # fmt: skip

        assert found == {**distilled.files, "lineage/manifest.json": distilled.manifest.sha256}
        assert graph.links("hasEvidence") == {(distilled.manifest.name, "lineage/manifest.json")}

    @pytest.mark.parametrize(
        ("annotations", "how"),
        [
            ({"license": "gemma"}, "hasDeclaredLicense"),
            ({"license": "gemma", "license_source": "inherited"}, "hasConcludedLicense"),
        ],
    )
    def test_a_licence_is_declared_by_somebody_or_concluded(self, distilled, annotations, how):
        licensed = replace(distilled.manifest, annotations=annotations)

        graph = Graph(spdx(replace(distilled, manifest=licensed)))

        assert (distilled.manifest.name, "gemma") in graph.links(how)
        told = {each["name"]: each["simplelicensing_licenseExpression"] for each in graph.of("simplelicensing_LicenseExpression")}  # fmt: skip
        assert told["gemma"] == "LicenseRef-gemma"

    def test_names_that_strangers_chose_break_nothing(self, distilled):
        dependencies = tuple(
            replace(item, uri='pkg:x/a b"<\n>\u2028é#%')
            for item in distilled.manifest.definition.dependencies
        )
        hostile = replace(
            distilled.manifest,
            name='a"\n\u0000\U0001f600',
            definition=replace(distilled.manifest.definition, dependencies=dependencies),
        )

        graph = Graph(spdx(replace(distilled, manifest=hostile, files={"a b/ü#.txt": "ab" * 32})))

        assert graph.objects.missing_ids == set()

    def test_the_same_record_gives_the_same_document(self, distilled):
        assert spdx(distilled) == spdx(Dossier.read(golden("distill")))

    def test_a_record_without_times_cannot_be_said_in_spdx(self, distilled):
        timeless = replace(
            distilled.manifest, details=replace(distilled.manifest.details, finished=None)
        )

        with pytest.raises(ReuseError, match="does not say when"):
            spdx(replace(distilled, manifest=timeless))


def test_the_bindings_do_refuse(distilled):
    """Else the tests above would prove nothing."""
    document = json.loads(spdx(distilled))
    for change in (
        lambda each: each.update(relationshipType="isCousinOf"),
        lambda each: each.update(software_primaryPurpose=3),
    ):
        broken = json.loads(json.dumps(document))
        link = next(each for each in broken["@graph"] if each["type"] == "Relationship")
        change(link)
        with pytest.raises(Exception, match=r"isCousinOf|software_primaryPurpose"):
            spdx_python_model.load_data(broken)
