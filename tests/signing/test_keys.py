from __future__ import annotations

import hashlib
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from reuselib.errors import SourceError, StoreError
from reuselib.signing.keys import key_hint, make_keys, private_key, public_key


def test_a_pair_fits_and_is_on_the_curve_that_the_standard_demands(tmp_path):
    public = make_keys(tmp_path / "key")

    secret = load_pem_private_key((tmp_path / "key").read_bytes(), None)
    assert public == tmp_path / "key.pub"
    assert secret.curve.name == "secp256r1"
    assert secret.public_key() == load_pem_public_key(public.read_bytes())
    assert key_hint(public_key(public)) == hashlib.sha256(public.read_bytes()).hexdigest()


def test_only_the_owner_may_read_the_private_key(tmp_path):
    public = make_keys(tmp_path / "new/key")

    assert stat.S_IMODE((tmp_path / "new/key").stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) & 0o022 == 0


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_a_key_is_never_overwritten(tmp_path, taken):
    (tmp_path / taken).write_text("precious")

    with pytest.raises(StoreError, match=f"{taken} exists already"):
        make_keys(tmp_path / "key")

    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "precious"


def test_a_dangling_link_is_not_followed_to_where_it_leads(tmp_path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreError, match="exists already"):
        make_keys(tmp_path / "key")


def test_encrypted_key_is_named_as_such(tmp_path):
    secret = ec.generate_private_key(ec.SECP256R1())
    form = BestAvailableEncryption(b"password")
    (tmp_path / "key").write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form))

    with pytest.raises(SourceError, match="is encrypted"):
        private_key(tmp_path / "key")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_other_curves_of_the_standard_are_read(tmp_path, curve):
    secret = ec.generate_private_key(curve)
    (tmp_path / "key").write_bytes(
        secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    assert private_key(tmp_path / "key").curve.name == curve.name


def unusable() -> dict[str, dict[object, bytes]]:
    kinds = {
        "another kind": ed25519.Ed25519PrivateKey.generate(),
        "another curve": ec.generate_private_key(ec.SECP256K1()),
        "cut short": ec.generate_private_key(ec.SECP256R1()),
    }
    pems = {}
    for name, secret in kinds.items():
        own = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        cut = 90 if name == "cut short" else None
        pems[name] = {private_key: own[:cut], public_key: public[:cut]}
    return {"no PEM": {private_key: b"x", public_key: b"x"}, **pems}


@pytest.mark.parametrize("case", unusable())
@pytest.mark.parametrize("read", [private_key, public_key])
def test_what_is_no_key_is_refused(tmp_path, case, read):
    (tmp_path / "key").write_bytes(unusable()[case][read])

    with pytest.raises(SourceError, match=r"holds no (private|public) key"):
        read(tmp_path / "key")


def test_one_key_in_place_of_the_other_is_named(tmp_path):
    public = make_keys(tmp_path / "mine")

    with pytest.raises(SourceError, match="is a private key") as caught:
        public_key(tmp_path / "mine")
    assert caught.value.fix == f"name {public}"
    with pytest.raises(SourceError, match="is a public key"):
        private_key(public)


def test_huge_or_missing_files_are_refused(tmp_path):
    (tmp_path / "huge").write_bytes(b"x" * 2**17)

    with pytest.raises(SourceError, match="larger than"):
        public_key(tmp_path / "huge")
    with pytest.raises(SourceError, match="cannot read"):
        public_key(tmp_path / "nowhere")


def test_openssl_reads_the_keys(tmp_path):
    public = make_keys(tmp_path / "key")
    command = ["openssl", "pkey", "-in", str(tmp_path / "key"), "-pubout"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")

    assert done.stdout == public.read_bytes()
