from __future__ import annotations

import json
import sys

import pytest

from golden import CHILDREN, golden
from reuselib.errors import IntegrityError, MissingExtra
from reuselib.exchange.dossier import Dossier
from reuselib.exchange.intoto import PAYLOAD_TYPE, manifest_of_envelope, statement
from reuselib.signing.dsse import sign_envelope
from reuselib.signing.keys import make_keys


@pytest.fixture
def key(tmp_path):
    make_keys(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(scope="module")
def int8():
    return Dossier.read(golden("int8"))


@pytest.mark.parametrize("name", CHILDREN)
class TestEveryChild:
    def test_unsigned_it_is_the_manifest_itself(self, name):
        exact = (golden(name) / "lineage/manifest.json").read_bytes()

        assert statement(Dossier.read(golden(name))) == exact

    def test_strict_parsers_of_the_standards_take_it(self, name):
        """The protocol buffers of in-toto and SLSA, with no unknown field allowed."""
        from google.protobuf import json_format
        from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
        from in_toto_attestation.v1 import statement_pb2

        payload = statement(Dossier.read(golden(name)))

        read = json_format.Parse(payload, statement_pb2.Statement())
        predicate = json.dumps(json.loads(payload)["predicate"])
        made = json_format.Parse(predicate, provenance_pb2.Provenance())

        assert read.subject[0].digest["dirHash"]
        assert made.build_definition.build_type == "urn:reuselib:derivation:v1"


def test_signed_it_opens_with_the_public_key_only(int8, key, tmp_path):
    envelope = statement(int8, key=key)
    make_keys(tmp_path / "other")

    assert manifest_of_envelope(envelope, [tmp_path / "own.pub"]) == int8.manifest.payload()
    with pytest.raises(IntegrityError) as caught:
        manifest_of_envelope(envelope, [tmp_path / "other.pub"])
    assert caught.value.code == "UNTRUSTED_SIGNER"


def test_what_is_signed_must_be_a_manifest(key, tmp_path):
    envelope = sign_envelope(b"{}", PAYLOAD_TYPE, key)

    with pytest.raises(IntegrityError) as caught:
        manifest_of_envelope(envelope, [tmp_path / "own.pub"])

    assert caught.value.code == "BAD_MANIFEST"


def test_without_the_extra_only_signing_is_missed(int8, key, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(MissingExtra, match=r"reuselib\[sign\]"):
        statement(int8, key=key)
    assert statement(int8) == int8.manifest.payload()
