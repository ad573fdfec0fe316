"""The first minute with signatures, as it is typed."""

from __future__ import annotations

import json

import pytest

from lineage.conftest import base, child, draft, pinned  # noqa: F401
from reuselib.cli.verdict import printable


@pytest.fixture
def signed(child, tmp_path, typed):  # noqa: F811
    assert typed("keygen", str(tmp_path / "key"))[0] == 0
    code, out, _ = typed("sign", str(child), "--key", str(tmp_path / "key"))
    assert code == 0
    assert "8 files in model.sig" in out
    return child


def test_signed_model_names_its_signer(signed, tmp_path, typed):
    code, out, _ = typed("verify", str(signed), "--key", str(tmp_path / "key.pub"))

    assert code == 0
    assert "history     signed, by key " in out
    assert "(key.pub)" in out


def test_json_holds_signer_tier_and_warnings(signed, tmp_path, typed):
    (signed / "notes.pdf").write_text("x")
    policy = tmp_path / "policy.yaml"
    policy.write_text("trusted_keys: [key.pub]\nrequire: [signed]\nunrecorded: warn\n")
    code, out, _ = typed("verify", str(signed), "--policy", str(policy), "--json")
    report = json.loads(out)

    assert code == 0
    assert report["tier"] == "signed"
    assert report["signer"].endswith("(key.pub)")
    assert [warning["code"] for warning in report["warnings"]] == ["UNSIGNED_FILE"]
    code, out, _ = typed("verify", str(signed), "--policy", str(policy))
    assert "warning: UNSIGNED_FILE" in out


def test_tampering_after_signing_is_named(signed, tmp_path, typed):
    (signed / "README.md").write_text("a better card")
    code, out, _ = typed("verify", str(signed), "--key", str(tmp_path / "key.pub"))

    assert code == 5
    assert "UNSIGNED_FILE: README.md was not signed" in out


def test_without_a_policy_a_signature_says_nothing(signed, typed):
    code, out, _ = typed("verify", str(signed))

    assert code == 0
    assert "it is signed, but no policy names a key to trust" in out
    assert "history     recorded\n" in out


def test_mistake_in_a_policy_is_no_traceback(signed, tmp_path, typed):
    (tmp_path / "policy.yaml").write_text("trusted: [x]\n")
    code, _, err = typed("verify", str(signed), "--policy", str(tmp_path / "policy.yaml"))

    assert code == 2
    assert "policy.yaml:1: trusted: unknown key; did you mean `trusted_keys`?" in err


def test_names_of_strangers_cannot_move_the_cursor():
    assert printable("a\x1b[2Kb\r\u202ec é") == "a\\x1b[2Kb\\r\\u202ec é"


def test_model_without_a_record_is_told_so_and_what_to_do(base, typed):  # noqa: F811
    code, out, _ = typed("verify", str(base))

    assert code == 5
    assert f"{base}: has no record\n" in out
    assert "0 files" not in out
    assert "  fix: ask for a copy with its record" in out


def test_bytes_that_match_and_are_not_accepted_are_told_so(child, tmp_path, typed):  # noqa: F811
    typed("keygen", str(tmp_path / "key"))
    code, out, _ = typed("verify", str(child), "--key", str(tmp_path / "key.pub"))

    assert code == 5
    assert "matches its manifest, and is NOT accepted" in out
    assert "  fix: ask for a signed copy" in out


def test_private_key_in_place_of_the_public_one(signed, tmp_path, typed):
    code, _, err = typed("verify", str(signed), "--key", str(tmp_path / "key"))

    assert code == 3
    assert f"name {tmp_path / 'key.pub'}" in err
    assert "keygen`\n" not in err
