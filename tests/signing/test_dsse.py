from __future__ import annotations

import base64
import json

import pytest

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.signing.dsse import MAX_BYTES, open_envelope, pae, read_envelope, sign_envelope
from reuselib.signing.keys import make_keys, public_pem

KIND = "application/vnd.in-toto+json"
PAYLOAD = b'{"a":1}'


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    private = tmp_path_factory.mktemp("keys") / "own"
    make_keys(private)
    return private


@pytest.fixture(scope="module")
def public(key):
    return key.with_name("own.pub")


@pytest.fixture
def envelope(key):
    return sign_envelope(PAYLOAD, KIND, key)


def edited(envelope: bytes, change) -> bytes:
    value = json.loads(envelope)
    change(value)
    return canonical.dumps(value)


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        (
            "http://example.com/HelloWorld",
            b"hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        ),
        ("", b"", b"DSSEv1 0  0 "),
        ("é", "é".encode(), b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"),
    ],
)
def test_what_is_signed_is_the_encoding_of_the_specification(kind, payload, expected):
    """The first is the test vector of the DSSE protocol; lengths are of bytes."""
    assert pae(kind, payload) == expected


def test_the_vector_of_the_protocol_is_an_envelope_that_opens(tmp_path):
    """Key and signature from the reference implementation's documentation (signed in fixed form, so made DER here)."""
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    point = ec.EllipticCurvePublicNumbers(
        46950820868899156662930047687818585632848591499744589407958293238635476079160,
        5640078356564379163099075877009565129882514886557779369047442380624545832820,
        ec.SECP256R1(),
    )
    (tmp_path / "k.pub").write_bytes(public_pem(point.public_key()))
    fixed = base64.b64decode(
        "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
    )
    signature = utils.encode_dss_signature(
        int.from_bytes(fixed[:32], "big"), int.from_bytes(fixed[32:], "big")
    )
    envelope = canonical.dumps(
        {
            "payload": "aGVsbG8gd29ybGQ=",
            "payloadType": "http://example.com/HelloWorld",
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        }
    )

    opened = open_envelope(envelope, "http://example.com/HelloWorld", [tmp_path / "k.pub"])

    assert opened == b"hello world"


def test_what_was_signed_is_opened_by_its_key(envelope, public):
    assert open_envelope(envelope, KIND, [public]) == PAYLOAD


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1", "SECP521R1"])
def test_another_library_accepts_what_is_signed_here(curve, tmp_path):
    """securesystemslib is the reference implementation of in-toto."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    own = ec.generate_private_key(getattr(ec, curve)())
    pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "k").write_bytes(pem)
    value = json.loads(sign_envelope(PAYLOAD, KIND, tmp_path / "k"))

    theirs = SSlibKey.from_crypto(own.public_key(), keyid=value["signatures"][0]["keyid"])
    read = Envelope.from_dict(value)

    assert read.pae() == pae(KIND, PAYLOAD)
    assert [*read.verify([theirs], threshold=1)] == [theirs.keyid]


def test_what_another_library_signs_is_opened_here(tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    signer = CryptoSigner(ec.generate_private_key(ec.SECP256R1()))
    made = Envelope(PAYLOAD, KIND, {})
    made.sign(signer)
    (tmp_path / "k.pub").write_text(signer.public_key.keyval["public"])

    data = canonical.dumps(made.to_dict())

    assert open_envelope(data, KIND, [tmp_path / "k.pub"]) == PAYLOAD


class TestStrangers:
    def test_a_changed_payload_is_refused(self, envelope, public):
        other = base64.b64encode(b'{"a":2}').decode()

        with pytest.raises(IntegrityError) as caught:
            open_envelope(edited(envelope, lambda e: e.update(payload=other)), KIND, [public])

        assert caught.value.code == "UNTRUSTED_SIGNER"

    def test_the_same_bytes_under_another_type_are_refused(self, key, public):
        envelope = sign_envelope(PAYLOAD, "text/plain", key)

        with pytest.raises(IntegrityError) as caught:
            open_envelope(envelope, KIND, [public])
        assert caught.value.code == "WRONG_TYPE"
        renamed = edited(envelope, lambda e: e.update(payloadType=KIND))
        with pytest.raises(IntegrityError) as caught:
            open_envelope(renamed, KIND, [public])
        assert caught.value.code == "UNTRUSTED_SIGNER"

    def test_another_key_is_refused_whatever_the_envelope_says_of_it(
        self, envelope, public, tmp_path
    ):
        make_keys(tmp_path / "theirs")
        hint = json.loads(envelope)["signatures"][0]["keyid"]
        forged = edited(
            sign_envelope(PAYLOAD, KIND, tmp_path / "theirs"),
            lambda e: e["signatures"][0].update(keyid=hint),
        )

        for keys in ([public], []):
            with pytest.raises(IntegrityError, match=hint) as caught:
                open_envelope(forged, KIND, keys)
            assert caught.value.code == "UNTRUSTED_SIGNER"

    def test_one_good_signature_among_several_is_enough(self, envelope, public, tmp_path):
        make_keys(tmp_path / "theirs")
        other = json.loads(sign_envelope(PAYLOAD, KIND, tmp_path / "theirs"))["signatures"]

        both = edited(envelope, lambda e: e.update(signatures=[*other, *e["signatures"]]))

        assert open_envelope(both, KIND, [public]) == PAYLOAD

    @pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null"])
    def test_what_is_no_object_is_a_bad_signature(self, data):
        with pytest.raises(IntegrityError) as caught:
            read_envelope(data)
        assert caught.value.code == "BAD_SIGNATURE"

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda e: e.update(signatures=[]), "UNSIGNED"),
            (lambda e: e.pop("signatures"), "UNSIGNED"),
            (lambda e: e["signatures"][0].update(sig=""), "UNSIGNED"),
            (lambda e: e["signatures"][0].pop("sig"), "BAD_SIGNATURE"),
            (lambda e: e["signatures"][0].update(sig="!"), "BAD_SIGNATURE"),
            (lambda e: e["signatures"][0].update(sig=3), "BAD_SIGNATURE"),
            (lambda e: e.update(signatures=e["signatures"] * 65), "LIMIT"),
            (lambda e: e.update(signatures={}), "BAD_SIGNATURE"),
            (lambda e: e.update(payload=""), "BAD_SIGNATURE"),
            (lambda e: e.update(payload=e["payload"] + "\n"), "BAD_SIGNATURE"),
            (lambda e: e.update(payload=e["payload"].rstrip("=")), "BAD_SIGNATURE"),
            (lambda e: e.update(payload="AB=="), "BAD_SIGNATURE"),
            (lambda e: e.pop("payloadType"), "BAD_SIGNATURE"),
            (lambda e: e.update(note="x"), "UNKNOWN_FIELD"),
            (lambda e: e["signatures"][0].update(cert="x"), "UNKNOWN_FIELD"),
        ],
    )
    def test_a_malformed_envelope_is_refused(self, envelope, change, code):
        with pytest.raises(IntegrityError) as caught:
            read_envelope(edited(envelope, change))

        assert caught.value.code == code

    def test_a_key_that_occurs_twice_is_refused(self, envelope):
        twice = envelope[:-1] + b',"payload":"AA=="}'

        with pytest.raises(IntegrityError) as caught:
            read_envelope(twice)

        assert caught.value.code == "BAD_JSON"

    def test_a_huge_envelope_is_not_read(self):
        with pytest.raises(IntegrityError) as caught:
            read_envelope(b" " * (MAX_BYTES + 1))

        assert caught.value.code == "LIMIT"
