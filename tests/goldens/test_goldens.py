"""Records that were good once stay good: every folder here must verify, be proven, open and trace for ever."""

from __future__ import annotations

import json

import pytest

from golden import CHILDREN, GOLDENS, MODELS, golden
from goldens.make import ANSWERS, DIGESTS, answers, digests
from reuselib import catalog
from reuselib.evidence.card_check import check_card
from reuselib.evidence.prove import prove
from reuselib.exchange.card import card
from reuselib.exchange.dossier import Dossier
from reuselib.forensics.trace import trace
from reuselib.lineage.definition import RELATIONS
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.policy import Policy
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify

NEVER_MADE = ("import", "continue", "convert")
"""Relations that no adapter has yet."""
MAX_BYTES = 3 * 2**20


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Knows where every golden folder is, and holds nothing else."""
    known = Store(tmp_path_factory.mktemp("golden-store"))
    for folder in MODELS.iterdir():
        known.remember_root(take_inventory(folder).digests.dir_hash, folder)
    return known


@pytest.mark.parametrize("name", CHILDREN)
class TestEveryFolder:
    def test_it_verifies(self, name):
        report = verify(golden(name))

        assert report.problems == ()
        assert report.tier in ("recorded", "signed")

    def test_it_is_proven_down_to_its_bases(self, name, store):
        proof = prove(golden(name), store=store)

        assert [finding for step in proof.steps for finding in step.findings if finding.holds is False] == []  # fmt: skip
        assert proof.tier == "proven"

    def test_it_traces_to_its_bases(self, name):
        traced = trace(golden(name))

        assert traced.ok
        assert traced.tier == "recorded"
        made_from = {edge.child for edge in traced.edges}
        ends = [node for node in traced.nodes if node.id not in made_from]
        assert {node.relation for node in ends} == {"import"}

    def test_its_card_is_the_one_that_its_record_gives(self, name):
        page = (golden(name) / "README.md").read_text(encoding="utf-8")

        assert page == card(Dossier.read(golden(name)))
        assert check_card(golden(name)).differences == ()


def test_bytes_and_identities_are_those_that_were_pinned():
    assert digests(MODELS) == json.loads((GOLDENS / DIGESTS).read_text(encoding="utf-8"))


def test_every_one_opens_and_says_what_it_said_when_it_was_made(tmp_path):
    pinned = json.loads((GOLDENS / ANSWERS).read_text(encoding="utf-8"))

    now = answers(MODELS, CHILDREN, Store(tmp_path / "store"))

    assert set(now) == set(pinned) == set(CHILDREN)
    for name in CHILDREN:
        for row, before in zip(now[name], pinned[name], strict=True):
            assert row == pytest.approx(before, abs=1e-3), name


def test_the_signed_one_is_signed_by_the_key_that_is_kept():
    trusting = Policy(trusted_keys=(str(GOLDENS / "signer.pub"),), require=("signed",))

    report = verify(golden("signed"), policy=trusting)

    assert report.problems == ()
    assert report.tier == "signed"
    assert not verify(golden("int8"), policy=trusting).ok


def test_terms_that_the_base_states_went_down_to_whom_they_reach():
    told = {name: Dossier.read(golden(name)).licence for name in CHILDREN}

    # of the twin and of the images' base nobody knows, and silence is not passed on as a yes
    assert {name for name in CHILDREN if not told[name]} == {"average", "channels"}
    assert set(told.values()) == {"apache-2.0", ""}


def test_there_is_one_of_every_relation_and_every_adapter():
    manifests = [Manifest.read(golden(name)) for name in CHILDREN]

    assert {each.relation for each in manifests} == set(RELATIONS) - set(NEVER_MADE)
    assert {each.definition.adapter for each in manifests} == set(catalog.ADAPTERS)


def test_all_of_them_are_small():
    assert sum(path.stat().st_size for path in GOLDENS.rglob("*") if path.is_file()) < MAX_BYTES
