"""What is said of a signature, by what the verifier brought along."""

from __future__ import annotations

import pytest

from reuselib.lineage.policy import Policy
from reuselib.lineage.verify import verify
from reuselib.signing.keys import make_keys
from reuselib.signing.sign import sign


@pytest.fixture
def keys(tmp_path):
    return make_keys(tmp_path / "mine"), make_keys(tmp_path / "theirs")


def said(report) -> str:
    return " ".join(line for line in report.unchecked if line.startswith("who made it"))


@pytest.mark.parametrize("policy", [None, Policy()])
def test_who_trusts_nobody_is_told_whether_there_is_a_signature(child, keys, tmp_path, policy):
    assert said(verify(child, policy=policy)) == "who made it: there is no signature"
    sign(child, tmp_path / "mine")
    report = verify(child, policy=policy)
    assert said(report) == "who made it: it is signed, but no policy names a key to trust"
    assert (report.ok, report.signer, report.tier) == (True, "", "recorded")


def test_who_demands_nothing_is_told_whose_signature_it_is(child, keys, tmp_path):
    trusting = Policy(trusted_keys=(str(keys[0]),))

    assert "none is demanded" in said(verify(child, policy=trusting))
    sign(child, tmp_path / "mine")
    report = verify(child, policy=trusting)
    assert report.signer.endswith("(mine.pub)")
    assert (report.ok, report.tier, said(report)) == (True, "signed", "")


def test_signature_of_a_stranger_is_a_warning_unless_one_is_demanded(child, keys, tmp_path):
    sign(child, tmp_path / "theirs")

    report = verify(child, policy=Policy(trusted_keys=(str(keys[0]),)))
    assert (report.ok, report.signer, report.tier) == (True, "", "recorded")
    assert [warning.code for warning in report.warnings] == ["UNTRUSTED_SIGNER"]

    report = verify(child, policy=Policy(trusted_keys=(str(keys[0]),), require=("signed",)))
    assert [problem.code for problem in report.problems] == ["UNTRUSTED_SIGNER"]


def test_signature_that_does_not_hold_is_a_problem_also_if_none_is_demanded(child, keys, tmp_path):
    sign(child, tmp_path / "mine")
    (child / "README.md").write_text("added")

    report = verify(child, policy=Policy(trusted_keys=(str(keys[0]),)))

    assert [(each.code, each.path) for each in report.problems] == [("UNSIGNED_FILE", "README.md")]
    assert (report.signer, report.tier) == ("", "broken")


def test_folder_without_a_manifest_says_so_too(base, keys):
    assert said(verify(base)) == "who made it: no signature was looked at"
