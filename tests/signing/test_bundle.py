from __future__ import annotations

import base64
import json

import pytest

from reuselib.errors import IntegrityError
from reuselib.signing.bundle import MAX_BYTES, read_bundle


@pytest.fixture
def bundle(signed):
    return json.loads((signed / "model.sig").read_bytes())


def code(value) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(IntegrityError) as caught:
        read_bundle(data)
    assert caught.value.path == "model.sig"
    return caught.value.code


def test_what_we_sign_is_read(signed, bundle):
    found = read_bundle((signed / "model.sig").read_bytes())

    assert found.hint == bundle["verificationMaterial"]["publicKey"]["hint"]
    assert found.signer == f"key {found.hint}"
    assert "lineage/manifest.json" in found.statement.files
    assert "README.md" in found.statement.files


@pytest.mark.parametrize("hint", [{}, {"hint": None}, {"hint": ""}, {"rawBytes": "eA=="}])
def test_older_writers_name_no_key(bundle, hint):
    bundle["verificationMaterial"]["publicKey"] = hint

    assert read_bundle(json.dumps(bundle).encode()).hint == ""


@pytest.mark.parametrize("keyid", [{}, {"keyid": None}, {"keyid": ""}])
def test_the_name_of_a_key_may_be_left_out(bundle, keyid):
    [signature] = bundle["dsseEnvelope"]["signatures"]
    bundle["dsseEnvelope"]["signatures"] = [{"sig": signature["sig"], **keyid}]

    assert read_bundle(json.dumps(bundle).encode())


def put(value, *path):
    """Set what is at a path; of a list, the item of a number."""

    def change(bundle):
        *outer, last = path
        for step in outer:
            bundle = bundle[step]
        bundle[last] = value

    return change


ENVELOPE, MATERIAL = "dsseEnvelope", "verificationMaterial"
CASES = {
    "other media type": (put("application/json", "mediaType"), "WRONG_TYPE"),
    "other payload type": (put("text/plain", ENVELOPE, "payloadType"), "WRONG_TYPE"),
    "signature of a file": (put({}, "messageSignature"), "WRONG_TYPE"),
    "no signatures": (put([], ENVELOPE, "signatures"), "UNSIGNED"),
    "empty signature": (put("", ENVELOPE, "signatures", 0, "sig"), "UNSIGNED"),
    "two signatures": (
        put([{"sig": "eA=="}, {"sig": "eA=="}], ENVELOPE, "signatures"),
        "BAD_SIGNATURE",
    ),
    "not base64": (put("***", ENVELOPE, "payload"), "BAD_SIGNATURE"),
    "white space in base64": (put("e A==", ENVELOPE, "payload"), "BAD_SIGNATURE"),
    "loose bits in base64": (put("eB==", ENVELOPE, "payload"), "BAD_SIGNATURE"),
    "no payload": (put("", ENVELOPE, "payload"), "BAD_JSON"),
    "payload not JSON": (put("eHg=", ENVELOPE, "payload"), "BAD_JSON"),
    "keyless": (put({"certificate": {}}, MATERIAL), "UNTRUSTED_SIGNER"),
    "no material": (put({}, MATERIAL), "BAD_SIGNATURE"),
    "key and certificates": (
        put({"publicKey": {}, "x509CertificateChain": {}}, MATERIAL),
        "BAD_SIGNATURE",
    ),
    "no certificates": (
        put({"x509CertificateChain": {"certificates": []}}, MATERIAL),
        "BAD_SIGNATURE",
    ),
    "hint no text": (put([1], MATERIAL, "publicKey", "hint"), "BAD_SIGNATURE"),
    "unknown field": (put(1, "more"), "UNKNOWN_FIELD"),
    "second spelling of a field": (put({}, "dsse_envelope"), "UNKNOWN_FIELD"),
    "envelope no object": (put([], ENVELOPE), "BAD_SIGNATURE"),
}


@pytest.mark.parametrize("case", CASES)
def test_another_form_is_refused(bundle, case):
    change, expected = CASES[case]
    change(bundle)

    assert code(bundle) == expected


def test_keys_given_twice_are_refused_outside_and_inside(bundle):
    text = json.dumps(bundle)
    assert code(text.replace('"payload"', '"payload": "eA==", "payload"', 1).encode()) == "BAD_JSON"

    payload = base64.b64decode(bundle[ENVELOPE]["payload"]).decode()
    twice = payload.replace('"resources"', '"resources": [], "resources"', 1)
    bundle[ENVELOPE]["payload"] = base64.b64encode(twice.encode()).decode()
    assert code(bundle) == "BAD_JSON"


def test_huge_files_are_not_parsed():
    assert code(b" " * (MAX_BYTES + 1)) == "LIMIT"


@pytest.mark.parametrize("data", [b"", b"\x80\x04x.", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe{"])
def test_other_bytes_are_refused(data):
    assert code(data) in ("BAD_JSON", "BAD_SIGNATURE")
