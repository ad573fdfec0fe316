"""Signatures checked: what holds, what does not, and what the official package makes of the same folders."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from model_signing import hashing, signing, verifying

from reuselib.errors import IntegrityError
from reuselib.lineage.policy import Policy, demands
from reuselib.lineage.verify import verify
from reuselib.signing.check import check_signature
from reuselib.signing.keys import make_keys
from reuselib.signing.sign import sign
from signing.authorities import issue

SIGNATURE = "model.sig"


def policy(*keys: Path, **others) -> Policy:
    return Policy(trusted_keys=tuple(map(str, keys)), require=("signed",), **others)


def check(folder: Path, policy: Policy):
    return check_signature(folder, policy, verify(folder).files)


def refused(folder: Path, policy: Policy) -> str:
    with pytest.raises(IntegrityError) as caught:
        check(folder, policy)
    return caught.value.code


def official(folder: Path, public: Path) -> None:
    """What the official package says, with its own reading of the folder."""
    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.verify(folder, folder / SIGNATURE)


def nest(folder: Path) -> None:
    """Names that sort differently by code point and by part of the path."""
    for name in ("a/x", "a-b/x", "a.txt", "a/bb:c", "é/x", "Z"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)


def test_signature_of_a_trusted_key_holds(signed, public):
    found = check(signed, policy(public))

    assert not found.problems
    assert not found.ignored
    assert found.signer.startswith("key ")
    assert found.signer.endswith("(me.pub)")


def test_what_we_sign_the_official_package_verifies(signed, public):
    official(signed, public)
    (signed / "config.json").write_text("{}")

    with pytest.raises(ValueError, match=r"Hash mismatch for 'config.json'"):
        official(signed, public)


def payload(folder: Path) -> dict:
    bundle = json.loads((folder / SIGNATURE).read_bytes())
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


def test_files_are_signed_in_order_of_code_points_which_all_verify(tmp_path, key, public):
    """The specification's order; the official package, left alone, orders by part of the path."""
    from reuselib.lineage.digest import all_files, file_digests
    from reuselib.signing.official import signed as write

    folder = tmp_path / "x"
    folder.mkdir()
    nest(folder)
    files = file_digests(folder)
    write(folder, files, key=key, target=folder / SIGNATURE)

    names = [each["name"] for each in payload(folder)["predicate"]["resources"]]
    assert names == sorted(set(all_files(folder)) - {SIGNATURE})
    assert names.index("a-b/x") < names.index("a.txt") < names.index("a/x")
    official(folder, public)
    assert not check_signature(folder, policy(public), files).problems


OFFICIAL = {
    "default": lambda: hashing.Config(),
    "signature ignored": lambda: hashing.Config().set_ignored_paths(paths=[SIGNATURE]),
    "blake2": lambda: hashing.Config().use_file_serialization(hashing_algorithm="blake2"),
    "blake3": lambda: hashing.Config().use_file_serialization(hashing_algorithm="blake3"),
    "pieces": lambda: hashing.Config().use_shard_serialization(shard_size=100),
    "pieces by blake2": lambda: hashing.Config().use_shard_serialization(
        shard_size=64, hashing_algorithm="blake2"
    ),
}


@pytest.mark.parametrize("how", OFFICIAL)
def test_what_the_official_package_signs_we_verify(child, key, public, how):
    config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(OFFICIAL[how]()).sign(child, child / SIGNATURE)

    assert not check(child, policy(public)).problems
    report = verify(child, policy=policy(public))
    assert (report.ok, report.tier) == (True, "signed")

    (child / "config.json").write_text('{"r": 7}')
    assert [(each.code, each.path) for each in check(child, policy(public)).problems] == [
        ("DIGEST_MISMATCH", "config.json")
    ]


def test_nested_folders_signed_by_the_official_package_are_verified(tmp_path, key, public):
    from reuselib.lineage.digest import file_digests

    folder = tmp_path / "x"
    folder.mkdir()
    nest(folder)
    files = file_digests(folder)
    signing.Config().use_elliptic_key_signer(private_key=key).sign(folder, folder / SIGNATURE)

    assert not check_signature(folder, policy(public), files).problems


@pytest.mark.parametrize("at", ["start", "middle", "end"])
def test_a_piece_that_was_left_out_is_noticed(tmp_path, key, public, at):
    """By a signer whose list of pieces has a hole."""
    from reuselib.lineage.digest import file_digests

    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "w").write_bytes(bytes(range(30)))
    left_out = {"start": "w:0:10", "middle": "w:10:20", "end": "w:20:30"}[at]

    class Partly(hashing.Config):
        def hash(self, model_path, *, files_to_hash=None):
            whole = hashing.Config().use_shard_serialization(shard_size=10).hash(model_path)
            whole._item_to_digest = {
                item: digest
                for item, digest in whole._item_to_digest.items()
                if str(item) != left_out
            }
            return whole

    config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(Partly()).sign(folder, folder / SIGNATURE)

    [problem] = check_signature(folder, policy(public), file_digests(folder)).problems
    assert (problem.code, problem.path) == ("DIGEST_MISMATCH", "w")


def test_no_signature(child, public):
    assert refused(child, policy(public)) == "UNSIGNED"


def test_signature_by_a_key_that_nobody_trusts(signed, tmp_path):
    other = make_keys(tmp_path / "keys/other")

    assert refused(signed, policy(other)) == "UNTRUSTED_SIGNER"
    assert refused(signed, Policy(trusted_roots=(str(other),))) == "UNTRUSTED_SIGNER"


def test_one_of_several_trusted_keys_is_enough(signed, tmp_path, public):
    other = make_keys(tmp_path / "keys/other")

    assert check(signed, policy(other, public)).signer.endswith("(me.pub)")


def test_key_that_came_with_the_model_counts_for_nothing(signed, public, tmp_path):
    shutil.copy(public, signed / "README.md")
    sign(signed, tmp_path / "keys/me")

    assert refused(signed, policy(signed / "README.md")) == "UNTRUSTED_SIGNER"


def edit(folder: Path, change) -> None:
    path = folder / SIGNATURE
    bundle = json.loads(path.read_bytes())
    change(bundle)
    path.write_text(json.dumps(bundle))


def reencode(bundle) -> None:
    """The same content in other bytes."""
    envelope = bundle["dsseEnvelope"]
    value = json.loads(base64.b64decode(envelope["payload"]))
    envelope["payload"] = base64.b64encode(json.dumps(value).encode()).decode()


def test_other_bytes_of_the_same_statement(signed, public):
    edit(signed, reencode)

    assert refused(signed, policy(public)) == "BAD_SIGNATURE"


def test_hint_of_another_key_does_not_help(signed, public, tmp_path):
    from reuselib.signing.keys import key_hint, public_key

    make_keys(tmp_path / "keys/other")
    sign(signed, tmp_path / "keys/other")
    hint = key_hint(public_key(public))
    edit(signed, lambda b: b["verificationMaterial"]["publicKey"].update(hint=hint))

    assert refused(signed, policy(public)) == "BAD_SIGNATURE"


def test_signature_without_a_hint_is_tried_with_every_key(signed, public, tmp_path, capsys):
    other = make_keys(tmp_path / "keys/other")
    edit(signed, lambda b: b["verificationMaterial"].update(publicKey={}))

    assert check(signed, policy(other, public)).signer.endswith("(me.pub)")
    assert refused(signed, policy(other)) == "UNTRUSTED_SIGNER"
    assert capsys.readouterr().out == ""  # which the official package would print to


def test_files_that_came_went_or_changed_are_named(signed, public):
    (signed / "README.md").write_text("another card")
    (signed / "added.json").write_text("{}")
    (signed / "added.pdf").write_text("x")
    (signed / "config.json").unlink()

    assert {(each.code, each.path) for each in check(signed, policy(public)).problems} == {
        ("DIGEST_MISMATCH", "README.md"),
        ("UNSIGNED_LOADABLE", "added.json"),
        ("UNSIGNED_FILE", "added.pdf"),
        ("MISSING_FILE", "config.json"),
    }


def sign_ignoring(folder: Path, key: Path, *paths: str) -> None:
    config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=paths))
    config.sign(folder, folder / SIGNATURE)


def test_what_the_signer_left_out_is_said(child, key, public):
    (child / "README.md").write_text("a card")
    (child / "lineage/ancestors").joinpath("x.md").write_text("x")
    sign_ignoring(child, key, "README.md", "lineage/ancestors/x.md")

    found = check(child, policy(public))

    assert found.ignored == ("README.md", "lineage/ancestors/x.md")
    assert not found.problems


@pytest.mark.parametrize("path", ["config.json", "lineage", "lineage/manifest.json"])
def test_what_would_be_loaded_must_not_be_left_out(child, key, public, path):
    sign_ignoring(child, key, path)

    problems = check(child, policy(public)).problems

    assert {each.code for each in problems} == {"UNSIGNED_LOADABLE"}
    assert all(each.path.startswith(path) for each in problems)


def test_certificate_of_a_trusted_authority(child, tmp_path):
    root = issue(tmp_path / "ca", "root", is_authority=True)
    middle = issue(tmp_path / "ca", "middle", root, is_authority=True)
    own = issue(tmp_path / "ca", "release", middle, email="release@example.org")
    signature = sign(child, own.key, [own.certificate, middle.certificate])

    def trusting(**others):
        return Policy(trusted_roots=(str(root.certificate),), require=("signed",), **others)

    assert signature.signer == "CN=release"
    assert check(child, trusting()).signer.startswith("CN=release (certificate ")
    for name in ("CN=release", "release", "release@example.org"):
        assert not check(child, trusting(identities=(name,))).problems
    assert refused(child, trusting(identities=("somebody else",))) == "UNTRUSTED_SIGNER"
    config = verifying.Config().use_certificate_verifier(certificate_chain=[root.certificate])
    config.verify(child, child / SIGNATURE)
    edit(child, reencode)
    assert refused(child, trusting()) == "BAD_SIGNATURE"


@pytest.mark.parametrize("case", ["expired", "not yet valid", "another authority", "self-signed"])
def test_certificate_that_does_not_count(child, tmp_path, case):
    root = issue(tmp_path / "ca", "root", is_authority=True)
    other = issue(tmp_path / "ca", "other", is_authority=True)
    days = {"expired": (-5, -1), "not yet valid": (1, 5)}.get(case, (-5, 5))
    by = {"another authority": other, "self-signed": None}.get(case, root)
    own = issue(tmp_path / "ca", "release", by, days=days)
    sign(child, own.key, [own.certificate])

    assert refused(child, Policy(trusted_roots=(str(root.certificate),))) == "UNTRUSTED_SIGNER"


def test_certificate_of_an_authority_cannot_sign_models(child, tmp_path):
    root = issue(tmp_path / "ca", "root", is_authority=True)
    sign(child, root.key, [root.certificate])

    assert refused(child, Policy(trusted_roots=(str(root.certificate),))) == "BAD_SIGNATURE"


def test_keys_of_a_policy_do_not_count_for_certificates(child, tmp_path, public):
    own = issue(tmp_path / "ca", "release")
    sign(child, own.key, [own.certificate])

    assert refused(child, policy(public)) == "UNTRUSTED_SIGNER"


def test_the_command_lines_key_is_a_policy_too(signed, public):
    report = verify(signed, policy=demands(None, keys=[public]))

    assert (report.ok, report.tier) == (True, "signed")


@pytest.mark.parametrize("name", ["flax_model.msgpack", "vocab.bpe", "source.spm", "chat.jinja"])
def test_what_a_library_is_known_to_load_must_not_be_left_out(child, key, public, name):
    (child / name).write_text("x")
    sign_ignoring(child, key, name)

    (problem,) = check(child, policy(public)).problems
    assert (problem.code, problem.path) == ("UNSIGNED_LOADABLE", name)
