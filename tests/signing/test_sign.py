from __future__ import annotations

import subprocess
import sys

import pytest

from reuselib.errors import IntegrityError, MissingExtra, SourceError
from reuselib.lineage.policy import demands
from reuselib.lineage.verify import verify
from reuselib.signing.check import check_signature
from reuselib.signing.keys import make_keys
from reuselib.signing.sign import sign
from signing.authorities import issue


def test_everything_but_the_signature_itself_is_signed(child, key):
    signature = sign(child, key)

    files = [path for path in child.rglob("*") if path.is_file() and path.name != "model.sig"]
    assert signature.num_files == len(files)
    assert signature.signer.startswith("key ")


def test_signing_again_replaces_the_signature(signed, tmp_path):
    before = (signed / "model.sig").read_bytes()
    other = make_keys(tmp_path / "keys/other")
    sign(signed, tmp_path / "keys/other")

    assert (signed / "model.sig").read_bytes() != before
    assert verify(signed, policy=demands(None, keys=[other])).ok


def test_moved_model_stays_signed(signed, public, tmp_path):
    signed.rename(tmp_path / "elsewhere")

    assert verify(tmp_path / "elsewhere", policy=demands(None, keys=[public])).tier == "signed"


def test_what_does_not_match_its_record_is_not_signed(child, key):
    (child / "config.json").write_text("{}")

    with pytest.raises(IntegrityError, match="is not signed") as caught:
        sign(child, key)

    assert (caught.value.code, caught.value.path) == ("DIGEST_MISMATCH", "config.json")
    assert not (child / "model.sig").exists()


def test_folder_without_a_record_is_not_signed(base, key, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (base, tmp_path / "empty"):
        with pytest.raises(IntegrityError) as caught:
            sign(folder, key)
        assert caught.value.code == "MISSING_LINEAGE"


def test_links_are_not_signed(child, key):
    (child / "x.txt").symlink_to(key)

    with pytest.raises(IntegrityError) as caught:
        sign(child, key)

    assert caught.value.code == "UNSAFE_PATH"


def test_certificate_of_another_key_is_refused(child, key, tmp_path):
    own = issue(tmp_path / "ca", "release")

    with pytest.raises(SourceError, match="does not match"):
        sign(child, key, [own.certificate])


def test_public_key_cannot_sign(child, public):
    with pytest.raises(SourceError, match="is a public key"):
        sign(child, public)


@pytest.mark.parametrize("missing", ["model_signing", "cryptography", "OpenSSL"])
def test_missing_extra_is_one_sentence(signed, key, public, monkeypatch, missing):
    """Neither signing nor verifying is skipped in silence."""
    files = verify(signed).files
    for name in list(sys.modules):
        if name.split(".")[0] in ("model_signing", missing):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(MissingExtra, match=r"pip install 'reuselib\[sign\]'"):
        sign(signed, key)
    with pytest.raises(MissingExtra, match=r"pip install 'reuselib\[sign\]'"):
        check_signature(signed, demands(None, keys=[public]), files)


def test_verifying_needs_no_torch_and_without_a_policy_no_extra(signed, public):
    """What judges a model must be able to do so without the libraries that run it."""
    code = (
        "import sys; from pathlib import Path; from reuselib import verify;"
        "from reuselib.lineage.policy import demands; from reuselib.signing import keys;"
        "folder, public = map(Path, sys.argv[1:]); assert verify(folder).ok;"
        "print(*{'model_signing', 'cryptography'} & {*sys.modules});"
        "assert verify(folder, policy=demands(None, keys=[public])).tier == 'signed';"
        "print(*{'torch', 'transformers', 'numpy'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, str(signed), str(public)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "\n\n"
