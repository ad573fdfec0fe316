from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from chains import flip
from evidence.test_claims import figures
from reuselib.errors import RecipeError, SourceError, StoreError
from reuselib.evidence import audit as auditing
from reuselib.evidence.audit import audit
from reuselib.evidence.audited import refuse_unwritable
from reuselib.exchange.export import export
from reuselib.lineage import canonical
from reuselib.lineage.policy import Policy
from reuselib.lineage.tensors import Tensors
from reuselib.lineage.verify import verify
from reuselib.testing.forging import part, restate, retouch
from scanning.payloads import call

FROZEN = "bert.encoder.layer.0.output.dense.weight"


@pytest.fixture
def child(chain, tmp_path):
    return shutil.copytree(chain.tuned.folder, tmp_path / "child")


@pytest.fixture
def look(chain):
    """An audit with everything at hand."""

    def run(folder, **options):
        return audit(folder, **{"data": chain.rows, "store": chain.store, **options})

    return run


def sections(found) -> list[str]:
    return [each.section for each in found.objections]


class TestHonest:
    @pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
    def test_a_model_with_everything_at_hand_is_accepted(self, chain, look, step):
        found = look(getattr(chain, step).folder)

        assert found.objections == ()
        assert found.ok
        assert {edge.tiers for edge in found.edges} == {("proven", "recorded")}
        assert all(claim.holds for claim in found.claims)
        assert found.card.differences == ()
        assert found.completeness.score > 0.7

    def test_what_is_not_at_hand_is_told_and_no_objection(self, chain, tmp_path):
        found = audit(chain.tuned.folder, store=tmp_path / "empty")

        assert found.ok
        assert any("came from Python" in line for line in found.unchecked)
        assert any("not at hand" in line for line in found.unchecked)
        assert [edge.tiers for edge in found.edges] == [("recorded",)] * 3

    def test_nothing_that_was_done_is_said_not_to_be(self, chain, look):
        lines = look(chain.tuned.folder).unchecked

        assert not [line for line in lines if line.startswith(auditing._DONE_HERE)]
        assert any("reuselib reproduce" in line for line in lines)

    def test_the_lines_that_are_left_out_are_still_those_of_the_others(self, chain, look):
        found = look(chain.tuned.folder)
        told = [*found.report.unchecked, *found.proof.unchecked]

        for beginning in auditing._DONE_HERE:
            assert any(line.startswith(beginning) for line in told), beginning

    def test_progress_is_told(self, chain, look):
        told = []
        look(chain.merged.folder, report=told.append)

        assert [each.done for each in told] == list(range(6))


class TestForged:
    def test_a_frozen_weight_that_moved(self, child, look):
        """Although every digest fits."""
        weight = Tensors(child)[FROZEN].clone()
        weight[0, 0] += 1e-6
        retouch(child, {FROZEN: weight})
        assert verify(child).ok

        found = look(child)

        assert "history" in sections(found)
        assert any(FROZEN in each.message for each in found.objections)
        assert found.edges[0].tiers == ()

    def test_a_flipped_byte(self, child, look):
        flip(child / "model.safetensors")

        found = look(child)

        assert "record" in sections(found)
        assert all("not opened" in claim.verdict for claim in found.claims)

    def test_a_claim_of_five_points_more(self, chain, child, look):
        value = chain.execution.model().evaluate(chain.rows.test)["accuracy"] + 0.05
        card = child / "README.md"
        claim = f"claims: [{{metric: accuracy, data: {chain.rows.digest}, value: {value}}}]"
        card.write_text(card.read_text().replace("---\n", f"---\n{claim}\n", 1))
        assert verify(child).ok

        found = look(child)

        assert sections(found) == ["claims"]
        assert "off by 0.05" in found.objections[0].message

    @pytest.mark.parametrize(
        "claims",
        [
            "[{metric: accuracy, value: '0.999'}]",
            "[{metric: accuracy, value: 0.999, splitt: test}]",
            "[{metric: accuracy, value: 0.999, tolerance: 1}]",
            "[{metric: Accuracy, value: 0.999}]",
            "{metric: accuracy, value: 0.999}",
        ],
    )
    def test_a_claim_that_nobody_can_check(self, child, look, claims):
        """Whatever a reader takes it for, nothing stands behind it."""
        card = child / "README.md"
        card.write_text(card.read_text().replace("---\n", f"---\nclaims: {claims}\n", 1))

        found = look(child)

        assert sections(found) == ["claims"]
        assert "cannot check, because" in found.objections[0].message

    def test_a_claim_about_rows_that_are_elsewhere_is_told_and_no_objection(self, child, look):
        card = child / "README.md"
        claim = f"claims: [{{metric: accuracy, value: 0.999, data: {'ab' * 32}}}]"
        card.write_text(card.read_text().replace("---\n", f"---\n{claim}\n", 1))

        found = look(child)

        assert found.ok
        assert any(line.startswith("a claim: it is about other rows") for line in found.unchecked)
        assert sections(look(child, policy=Policy(claims="hold"))) == ["claims"]

    def test_a_number_that_was_measured_on_no_rows(self, child, look):
        with figures(child) as told:
            told["after"]["accuracy"] = 0.999
            told["test"]["rows"] = 0
        (child / "README.md").write_bytes(export(child, "card"))

        found = look(child)

        assert set(sections(found)) == {"claims"}
        assert "of 0 rows" in found.objections[0].message

    def test_a_figure_on_the_card_that_is_not_the_recorded_one(self, child, look):
        card = child / "README.md"
        card.write_text(
            card.read_text().replace(
                '"type": "accuracy", "value": ', '"type": "accuracy", "value": 9', 1
            )
        )

        assert sections(look(child)) == ["card"]

    def test_another_base_on_the_card_is_told_and_no_objection(self, child, look):
        card = child / "README.md"
        card.write_text(card.read_text().replace('"file:base"', '"org/base"', 1))

        found = look(child)

        assert found.ok
        assert [each.key for each in found.card.differences] == ["base_model"]

    def test_a_history_that_does_not_hold_together(self, child, look):
        [ancestor, *_] = sorted((child / "lineage/ancestors").iterdir())
        flip(ancestor)

        found = look(child)

        assert {"record", "history"} <= set(sections(found))

    def test_a_pickle_beside_the_weights(self, child, look, tmp_path):
        marker = tmp_path / "marker"
        (child / "pytorch_model.bin").write_bytes(call("os", "system", f"touch {marker}"))

        found = look(child)

        assert {"record", "scan"} <= set(sections(found))
        assert not marker.exists()

    def test_remote_code_that_the_record_itself_names(self, child, look):
        config = child / "config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoModel": "a.B"}})
        )
        restate(child)

        found = look(child)

        assert "scan" in sections(found)
        assert all("may run code" in claim.verdict for claim in found.claims)

    def test_a_parent_that_is_another_model(self, chain, look, tmp_path):
        from reuselib.testing.tiny import tiny_bert

        stranger = tiny_bert(tmp_path / "stranger", seed=5)

        found = look(chain.tuned.folder, parents=[stranger])

        assert sections(found) == ["history"]
        assert "no model of the history" in found.objections[0].message


class TestPolicy:
    def test_every_edge_must_reach_what_it_demands(self, chain, look, tmp_path):
        proven = Policy(require=("proven",))

        assert look(chain.tuned.folder, policy=proven).ok
        found = look(chain.tuned.folder, policy=proven, store=tmp_path / "empty")
        assert sections(found) == ["policy"] * 3
        assert "is not proven (it is recorded)" in found.objections[0].message

    def test_each_tier_is_demanded_by_itself(self, chain, look, tmp_path):
        from reuselib.signing.keys import make_keys
        from reuselib.signing.sign import sign

        public = make_keys(tmp_path / "key")
        child = shutil.copytree(chain.tuned.folder, tmp_path / "signed")
        policy = Policy(require=("signed", "proven"), trusted_keys=(str(public),))
        unsigned = look(child, policy=policy)
        assert not unsigned.ok

        sign(child, tmp_path / "key")
        found = look(child, policy=policy)
        lost = look(child, policy=policy, store=tmp_path / "empty")

        assert found.objections == ()
        assert {edge.tiers for edge in found.edges} == {("proven", "signed", "recorded")}
        assert {edge.lacking for edge in lost.edges} == {("proven",)}

    def test_a_gap_in_the_history_is_not_recorded(self, chain, look, tmp_path):
        child = shutil.copytree(chain.tuned.folder, tmp_path / "child")
        shutil.rmtree(child / "lineage/ancestors")

        assert look(child, store=tmp_path / "empty").ok
        found = look(child, policy=Policy(), store=tmp_path / "empty")
        assert not found.ok
        assert found.edges[1].lacking == ("recorded",)

    def test_replayed_means_doing_every_step_again(self, chain, look):
        found = look(chain.merged.folder, policy=Policy(require=("replayed",)))

        assert found.objections == ()
        assert {edge.tiers for edge in found.edges} == {("proven", "recorded", "replayed")}
        assert not any("reuselib reproduce" in line for line in found.unchecked)

    def test_an_ancestor_with_another_record_is_not_replayed(self, chain, child, look):
        """Its weights come out the same; what the history says of them does not."""
        lies = _retold(child)

        found = look(child, policy=Policy(require=("replayed",)))

        edges = {edge.name: edge for edge in found.edges}
        assert verify(child).ok
        assert edges[lies].lacking == ("replayed",)
        assert "another record" in edges[lies].why
        assert any("another record" in each.message for each in found.objections)

    def test_a_step_that_cannot_be_made_again_is_not_replayed(self, chain, look, tmp_path):
        policy = Policy(require=("replayed",))

        without_rows = look(chain.lora.folder, policy=policy, data=None)
        assert sections(without_rows) == ["policy"]
        assert "not replayed" in without_rows.objections[0].message

        alone = look(chain.merged.folder, policy=policy, store=tmp_path / "empty")
        assert sections(alone) == ["policy"] * 2
        assert all(edge.why for edge in alone.edges)

    @pytest.mark.parametrize("tier", ["proven", "replayed", "signed"])
    def test_a_gap_in_the_history_reaches_nothing(self, chain, look, tmp_path, tier):
        from reuselib.signing.keys import make_keys

        child = shutil.copytree(chain.tuned.folder, tmp_path / "child")
        shutil.rmtree(child / "lineage/ancestors")
        keys = (str(make_keys(tmp_path / "key")),) if tier == "signed" else ()

        found = look(
            child, policy=Policy(require=(tier,), trusted_keys=keys), store=tmp_path / "empty"
        )

        assert [tier in edge.lacking for edge in found.edges] == [True, True]

    def test_silence_about_how_good_it_is_does_not_hold(self, child, look):
        with figures(child) as told:
            told["after"] = {}
            told["quality"] = {}
            told["intervals"] = {}
        (child / "README.md").unlink()

        assert look(child).ok
        found = look(child, policy=Policy(claims="hold"))
        assert sections(found) == ["claims"]
        assert "nothing is stated" in found.objections[0].message

    def test_a_claim_that_cannot_be_measured(self, chain, look):
        folder = chain.tuned.folder

        assert look(folder, data=None, policy=Policy()).ok
        assert set(sections(look(folder, data=None, policy=Policy(claims="hold")))) == {"claims"}
        assert look(folder, policy=Policy(claims="hold")).ok

    def test_licences(self, chain, look):
        found = look(chain.lora.folder, policy=Policy(licences=("MIT",)))

        assert sections(found) == ["licences"] * 2

    def test_completeness(self, chain, look):
        assert look(chain.lora.folder, policy=Policy(min_completeness=0.5)).ok
        found = look(chain.lora.folder, policy=Policy(min_completeness=0.99))
        assert sections(found) == ["completeness"]

    def test_what_it_allows_is_no_objection(self, child, look):
        config = child / "config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoModel": "a.B"}})
        )
        restate(child)

        assert "scan" not in sections(look(child, policy=Policy(allow=("REMOTE_CODE",))))

    def test_it_may_be_a_file(self, chain, look, tmp_path):
        path = tmp_path / "policy.yaml"
        path.write_text("licences: [MIT]\n")
        assert sections(look(chain.lora.folder, policy=path)) == ["licences"] * 2

        path.write_text("licence: [MIT]\n")
        with pytest.raises(RecipeError, match="licence"):
            look(chain.lora.folder, policy=path)


class TestWithoutRecord:
    def test_a_base_is_scanned_and_not_accepted(self, chain, look):
        found = look(chain.base)

        assert sections(found) == ["record"]
        assert (found.name, found.proof, found.licences, found.claims) == ("base", None, None, ())
        assert found.scan.formats
        assert found.completeness.score > 0

    def test_a_policy_of_licences_is_not_met(self, chain, look):
        assert sections(look(chain.base, policy=Policy(licences=("MIT",)))) == [
            "record",
            "licences",
        ]

    def test_an_empty_folder_is_no_traceback(self, look, tmp_path):
        (tmp_path / "empty").mkdir()

        assert not look(tmp_path / "empty").ok

    def test_a_folder_that_is_not_there_is_an_error(self, look, tmp_path):
        with pytest.raises(SourceError):
            look(tmp_path / "nothing")


def _retold(folder) -> str:
    """Give the merged ancestor another seed, wherever its record is named; returns its name."""
    ancestors = folder / "lineage/ancestors"
    records = [(path, json.loads(path.read_bytes())) for path in sorted(ancestors.iterdir())]
    [(path, told)] = [
        (path, told)
        for path, told in records
        if part(told, "externalParameters").get("relation") == "merge"
    ]
    part(told, "externalParameters")["seed"] = 77
    data = canonical.dumps(told)
    digest = hashlib.sha256(data).hexdigest()
    path.rename(ancestors / f"{digest}.json").write_bytes(data)

    def name(statement):
        for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
            if each["digest"].get("sha256") == path.stem:
                each["digest"] = {"sha256": digest}

    restate(folder, name)
    return told["subject"][0]["name"]


class TestWriting:
    def test_a_place_that_cannot_be_written_is_found_out_at_once(self, tmp_path):
        (tmp_path / "file").touch()
        for path, why in (
            (tmp_path / "nowhere/audit.json", "there is no folder"),
            (tmp_path / "file/audit.json", "there is no folder"),
            (tmp_path, "it is a folder"),
        ):
            with pytest.raises(StoreError, match=why) as caught:
                refuse_unwritable(path)
            assert str(path) in caught.value.what
            assert "--store" not in str(caught.value)

    def test_what_is_there_is_replaced(self, tmp_path):
        (tmp_path / "audit.json").write_text("old")

        refuse_unwritable(tmp_path / "audit.json")


def test_the_same_model_gives_the_same_file(chain, look, tmp_path):
    for name in ("one.json", "two.json"):
        look(chain.tuned.folder).write(tmp_path / name)

    written = (tmp_path / "one.json").read_bytes()
    assert written == (tmp_path / "two.json").read_bytes()
    value = json.loads(written)
    assert value["ok"] is True
    assert {
        "record",
        "proof",
        "edges",
        "scan",
        "claims",
        "licences",
        "card",
        "completeness",
    } <= set(value)
    assert value["unchecked"]
