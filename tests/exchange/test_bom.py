from __future__ import annotations

import base64
import json
import sys
from dataclasses import replace

import pytest

from golden import CHILDREN, golden
from reuselib.errors import IntegrityError, MissingExtra
from reuselib.exchange.bom import ancestors_of_bom, bom, check_bom, manifest_of_bom
from reuselib.exchange.dossier import Dossier
from reuselib.lineage.chain import walk
from reuselib.lineage.manifest import Manifest


@pytest.fixture(scope="module")
def cut():
    return Dossier.read(golden("cut"))


def bill(dossier: Dossier) -> dict:
    return json.loads(bom(dossier))


def facts(part: dict) -> dict:
    return {each["name"].removeprefix("reuselib:"): each["value"] for each in part["properties"]}


@pytest.mark.parametrize("name", CHILDREN)
class TestEveryChild:
    def test_its_bill_is_strictly_valid(self, name):
        check_bom(bom(Dossier.read(golden(name))))

    def test_the_manifest_comes_back_byte_for_byte(self, name):
        written = bom(Dossier.read(golden(name)))

        assert manifest_of_bom(written) == (golden(name) / "lineage/manifest.json").read_bytes()

    def test_the_graph_comes_back_whole(self, name):
        written = bom(Dossier.read(golden(name)))

        chain = walk(Manifest.parse(manifest_of_bom(written)), ancestors_of_bom(written))

        files = golden(name).glob("lineage/ancestors/*.json")
        assert set(chain.manifests) == {path.stem for path in files}
        assert not chain.missing

    def test_every_reference_is_to_a_part_of_the_bill(self, name):
        whole = bill(Dossier.read(golden(name)))
        own: list[str] = []
        named: list[str] = []

        def look(value: object) -> None:
            if isinstance(value, dict):
                own.extend([value["bom-ref"]] if "bom-ref" in value else [])
                named.extend([value["ref"]] if "ref" in value else [])
                named.extend(value.get("dependsOn", []))
            for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():  # fmt: skip
                look(each)

        look(whole)

        assert len(set(own)) == len(own)
        assert set(named) <= set(own)


class TestContent:
    def test_the_model_is_named_by_its_digests(self, cut):
        component = bill(cut)["metadata"]["component"]

        assert component["type"] == "machine-learning-model"
        assert component["hashes"] == [{"alg": "SHA-256", "content": cut.manifest.digests.dir_hash}]
        assert facts(component)["digest:tensorHash1"] == cut.manifest.digests.tensor_hash
        listed = {part["name"]: part["hashes"][0]["content"] for part in component["components"]}
        lines = (golden("cut") / "lineage/files.sha256").read_text().splitlines()
        assert listed == {line[66:]: line[:64] for line in lines}

    def test_the_pedigree_is_the_whole_line_the_parent_first(self, cut):
        parent, root = bill(cut)["metadata"]["component"]["pedigree"]["ancestors"]

        assert parent["hashes"][0]["content"] == cut.manifest.parents[0].digests.dir_hash
        assert facts(parent)["relation"] == "finetune"
        assert facts(parent)["role"] == "base"
        assert facts(root)["relation"] == "import"
        assert facts(parent)["madeFrom"] == root["hashes"][0]["content"]
        assert "role" not in facts(root)

    def test_every_setting_of_the_recipe_is_a_parameter(self, cut):
        run = bill(cut)["formulation"][0]["workflows"][0]
        [asked] = [each["parameters"] for each in run["inputs"] if "parameters" in each]
        told = {each["name"]: each for each in asked}

        assert told["recipe.heads"] == {"name": "recipe.heads", "value": "0.5", "dataType": "number"}  # fmt: skip
        assert told["recipe.calibration.num_rows"]["value"] == "128"
        assert told["recipe.channels"] == {"name": "recipe.channels", "value": "null"}
        assert told["seed"]["value"] == "0"
        assert told["data.source"]["value"] == "file:rows"
        assert len(told) == len(asked)

    def test_the_run_has_its_times_and_what_it_left(self, cut):
        run = bill(cut)["formulation"][0]["workflows"][0]
        metadata = cut.manifest.statement()["predicate"]["runDetails"]["metadata"]

        assert (run["timeStart"], run["timeEnd"]) == (
            metadata["startedOn"],
            metadata["finishedOn"],
        )
        assert run["uid"] == metadata["invocationId"]
        left = {
            each["resource"]["externalReference"]["url"]: each["resource"]["externalReference"][
                "hashes"
            ][0]["content"]
            for each in run["outputs"]
            if "externalReference" in each.get("resource", {})
        }
        assert left == {item.name: item.digest["sha256"] for item in cut.manifest.details.byproducts}  # fmt: skip

    def test_the_metrics_are_those_measured_with_their_intervals(self, cut):
        card = bill(cut)["metadata"]["component"]["modelCard"]
        told = {
            (each["type"], each["slice"]): each
            for each in card["quantitativeAnalysis"]["performanceMetrics"]
        }

        for phase in ("before", "after"):
            for name, value in getattr(cut.figures, phase).items():
                assert float(told[name, phase]["value"]) == value
        low, high = cut.figures.intervals["after"]["accuracy"]
        span = told["accuracy", "after"]["confidenceInterval"]
        assert (float(span["lowerBound"]), float(span["upperBound"])) == (low, high)
        assert card["modelParameters"]["datasets"] == [{"ref": "rows:data"}]
        assert facts(card)["cost:num_parameters"] == str(cut.figures.cost["num_parameters"])

    @pytest.mark.parametrize(
        ("recorded", "told"),
        [
            ("apache-2.0", [{"license": {"id": "Apache-2.0"}}]),
            ("llama3.1", [{"license": {"name": "llama3.1"}}]),
            ("MIT AND gemma", [{"license": {"id": "MIT"}}, {"license": {"name": "gemma"}}]),
        ],
    )
    def test_a_licence_is_an_identifier_where_it_is_one(self, cut, recorded, told):
        licensed = replace(cut.manifest, annotations={"license": recorded})

        written = bom(replace(cut, manifest=licensed))

        assert json.loads(written)["metadata"]["component"]["licenses"] == told
        check_bom(written)

    def test_what_is_not_known_is_not_there(self, cut):
        base, statement, *_ = cut.manifest.definition.dependencies
        base = replace(base, annotations={})
        bare = replace(
            cut.manifest,
            annotations={},
            definition=replace(
                cut.manifest.definition, dependencies=(base, statement), task=None, data=None
            ),
            details=replace(cut.manifest.details, started=None, finished=None, versions={}),
        )

        written = bom(Dossier(bare))

        check_bom(written)
        told = json.loads(written)
        component = told["metadata"]["component"]
        assert "timestamp" not in told["metadata"]
        assert component["modelCard"] == {}
        assert "licenses" not in component
        [parent] = component["pedigree"]["ancestors"]
        assert "relation" not in facts(parent)
        run = told["formulation"][0]["workflows"][0]
        assert "timeStart" not in run

    def test_names_that_strangers_chose_break_nothing(self, cut):
        dependencies = tuple(
            replace(item, uri='file:a b"<\n>\u2028é')
            for item in cut.manifest.definition.dependencies
        )
        byproducts = tuple(
            replace(item, name=f"lineage/ {item.name}<é>")
            for item in cut.manifest.details.byproducts
        )
        hostile = replace(
            cut.manifest,
            name='a"\n\u0000\U0001f600',
            definition=replace(cut.manifest.definition, dependencies=dependencies),
            details=replace(cut.manifest.details, byproducts=byproducts),
        )

        written = bom(replace(cut, manifest=hostile))

        check_bom(written)
        assert manifest_of_bom(written) == hostile.payload()

    def test_nothing_is_written_that_could_not_be_read_back(self, cut, monkeypatch):
        monkeypatch.setattr("reuselib.exchange.bom.MAX_BYTES", len(bom(cut)) - 1)

        with pytest.raises(IntegrityError) as caught:
            bom(cut)

        assert caught.value.code == "LIMIT"

    def test_the_same_record_gives_the_same_bill(self, cut):
        assert bom(cut) == bom(Dossier.read(golden("cut")))
        assert bill(cut)["serialNumber"] != bill(Dossier.read(golden("int8")))["serialNumber"]


def edited(written: bytes, change) -> bytes:
    whole = json.loads(written)
    change(whole)
    return json.dumps(whole).encode()


def attached(whole: dict) -> dict:
    return whole["formulation"][0]["workflows"][0]["outputs"][-1]["data"]


class TestReading:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda whole: whole.update(bomFormat="SPDX"), "WRONG_TYPE"),
            (lambda whole: attached(whole).update(encoding="hex"), "WRONG_TYPE"),
            (lambda whole: attached(whole).update(content="???"), "WRONG_TYPE"),
            (lambda whole: attached(whole).update(content="e30="), "BAD_MANIFEST"),
            (lambda whole: whole.pop("formulation"), "MISSING_LINEAGE"),
            (lambda whole: whole["formulation"].append(whole["formulation"][0]), "MISSING_LINEAGE"),
            (
                lambda whole: whole["metadata"]["component"].pop("externalReferences"),
                "DIGEST_MISMATCH",
            ),
            (lambda whole: whole.update(formulation=[[3]]), "MISSING_LINEAGE"),
        ],
    )
    def test_a_bill_that_does_not_hold_together_is_refused(self, cut, change, code):
        with pytest.raises(IntegrityError) as caught:
            manifest_of_bom(edited(bom(cut), change))

        assert caught.value.code == code

    def test_another_models_manifest_in_the_bill_is_refused(self, cut):
        other = attached(bill(Dossier.read(golden("int8"))))

        with pytest.raises(IntegrityError) as caught:
            manifest_of_bom(edited(bom(cut), lambda whole: attached(whole).update(other)))

        assert caught.value.code == "DIGEST_MISMATCH"

    @pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"bomFormat": 1}', b"[" * 10_000])
    def test_what_is_no_bill_is_refused(self, data):
        for read in (manifest_of_bom, ancestors_of_bom):
            with pytest.raises(IntegrityError) as caught:
                read(data)
            assert caught.value.code in ("BAD_JSON", "WRONG_TYPE")


def component(whole: dict) -> dict:
    return whole["metadata"]["component"]


def step(whole: dict) -> list[dict]:
    return whole["formulation"][0]["workflows"][0]["inputs"]


def parameter(whole: dict) -> dict:
    return next(each["parameters"][0] for each in step(whole) if "parameters" in each)


OTHER = [{"alg": "SHA-256", "content": "ab" * 32}]


class TestAgreement:
    """The view that people read may say nothing else than the manifest that is signed."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda whole: component(whole).update(name="another"),
            lambda whole: component(whole).update(hashes=OTHER),
            lambda whole: component(whole).update(licenses=[{"license": {"id": "MIT"}}]),
            lambda whole: component(whole)["properties"][0].update(value="ab" * 32),
            lambda whole: component(whole)["properties"].insert(
                0, {"name": "reuselib:relation", "value": "import"}
            ),
            lambda whole: component(whole)["components"].pop(),
            lambda whole: component(whole)["components"][0].update(hashes=OTHER),
            lambda whole: component(whole)["components"].append(component(whole)["components"][0]),
            lambda whole: component(whole)["pedigree"]["ancestors"].pop(),
            lambda whole: component(whole)["pedigree"]["ancestors"].reverse(),
            lambda whole: component(whole)["pedigree"]["ancestors"][0].update(name="gpt"),
            lambda whole: component(whole)["pedigree"]["ancestors"][1].update(hashes=OTHER),
            lambda whole: whole["components"][0].update(name="file:other"),
            lambda whole: whole.update(components=[]),
            lambda whole: parameter(whole).update(value="0.9"),
            lambda whole: step(whole).clear(),
        ],
    )
    def test_a_view_that_says_otherwise_is_refused(self, cut, change):
        with pytest.raises(IntegrityError) as caught:
            manifest_of_bom(edited(bom(cut), change))

        assert caught.value.code == "BAD_BOM"

    def test_what_others_add_is_no_contradiction(self, cut):
        def add(whole: dict) -> None:
            whole["signature"] = {"value": "x"}
            component(whole)["properties"].append({"name": "ours:team", "value": "x"})

        assert manifest_of_bom(edited(bom(cut), add)) == cut.manifest.payload()

    def test_base64_has_one_form(self):
        whole = next(
            whole
            for name in CHILDREN
            if attached(whole := bill(Dossier.read(golden(name))))["content"].endswith("=")
        )
        text = attached(whole)["content"]
        kept = text.rstrip("=")
        # the bits behind the last byte are not read, so several texts stand for the same bytes
        twin = f"{kept[:-1]}{chr(ord(kept[-1]) + 1)}{text[len(kept) :]}"
        assert base64.b64decode(twin, validate=True) == base64.b64decode(text)

        for other in (twin, f"{text}\n", f"é{text}", f"{text}===="):
            attached(whole)["content"] = other
            with pytest.raises(IntegrityError) as caught:
                manifest_of_bom(json.dumps(whole).encode())
            assert caught.value.code == "WRONG_TYPE"

    def test_ancestors_are_manifests(self, cut):
        def spoil(whole: dict) -> None:
            each = next(each for each in step(whole) if "data" in each)
            each["data"]["content"] = "e30="

        with pytest.raises(IntegrityError) as caught:
            ancestors_of_bom(edited(bom(cut), spoil))

        assert caught.value.code == "BAD_MANIFEST"


class TestValidation:
    def test_what_the_schema_does_not_know_is_found(self, cut):
        wrong = edited(bom(cut), lambda whole: whole["metadata"].update(made_by="me"))

        with pytest.raises(IntegrityError, match="made_by") as caught:
            check_bom(wrong)

        assert caught.value.code == "BAD_BOM"

    def test_without_the_validator_only_validation_is_missed(self, cut, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("cyclonedx")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "cyclonedx", None)
        written = bom(cut)

        with pytest.raises(MissingExtra, match=r"reuselib\[bom\]"):
            check_bom(written)
        assert manifest_of_bom(written) == cut.manifest.payload()
