"""What is said of a signature, by what the verifier brought along."""

from __future__ import annotations

import pytest

from reuselib.errors import SourceError
from reuselib.lineage.manifest import Manifest
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


@pytest.mark.parametrize("require", [(), ("recorded",), ("signed",)])
def test_who_trusts_somebody_demands_a_signature(child, keys, tmp_path, require):
    """One that could be stripped, or replaced by a stranger's, would be worth nothing."""
    trusting = Policy(trusted_keys=(str(keys[0]),), require=require)

    assert [each.code for each in verify(child, policy=trusting).problems] == ["UNSIGNED"]
    sign(child, tmp_path / "theirs")
    report = verify(child, policy=trusting)
    assert [each.code for each in report.problems] == ["UNTRUSTED_SIGNER"]
    assert (report.signer, report.tier) == ("", "broken")
    sign(child, tmp_path / "mine")
    report = verify(child, policy=trusting)
    assert report.signer.endswith("(mine.pub)")
    assert (report.ok, report.tier, said(report)) == (True, "signed", "")


def test_key_that_cannot_be_read_is_told_also_of_an_unsigned_folder(child, tmp_path):
    (tmp_path / "broken.pub").write_text("x")

    with pytest.raises(SourceError, match="holds no public key"):
        verify(child, policy=Policy(trusted_keys=(str(tmp_path / "broken.pub"),)))


def test_nobody_is_named_as_signer_of_what_is_too_old(child, keys, tmp_path):
    sign(child, tmp_path / "mine")
    recalled = (Manifest.read(child).sha256,)

    report = verify(child, policy=Policy(trusted_keys=(str(keys[0]),), superseded=recalled))

    assert [each.code for each in report.problems] == ["STALE"]
    assert (report.signer, report.tier) == ("", "broken")


def test_card_is_unchecked_only_where_no_signature_covers_it(child, keys, tmp_path):
    sign(child, tmp_path / "mine")

    def has_card(report):
        return any(line.startswith("README.md") for line in report.unchecked)

    assert has_card(verify(child))
    assert not has_card(verify(child, policy=Policy(trusted_keys=(str(keys[0]),))))


def test_signature_that_does_not_hold_is_a_problem(child, keys, tmp_path):
    sign(child, tmp_path / "mine")
    (child / "README.md").write_text("added")

    report = verify(child, policy=Policy(trusted_keys=(str(keys[0]),)))

    assert [(each.code, each.path) for each in report.problems] == [("UNSIGNED_FILE", "README.md")]
    assert (report.signer, report.tier) == ("", "broken")


def test_folder_without_a_manifest_says_so_too(base, keys):
    assert said(verify(base)) == "who made it: no signature was looked at"
