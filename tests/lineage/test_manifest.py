from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical
from reuselib.lineage.digest import Digests
from reuselib.lineage.manifest import MANIFEST, Manifest

DIGESTS = Digests("ab" * 32, "cd" * 32)


def test_manifest_is_an_intoto_statement_with_slsa_provenance(child):
    statement = json.loads((child / MANIFEST).read_bytes())

    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert set(statement["predicate"]) == {"buildDefinition", "runDetails"}
    assert set(statement["subject"][0]["digest"]) == {"dirHash", "tensorHash1"}


def test_manifest_is_read_back_equal_and_its_digest_is_that_of_its_bytes(child):
    data = (child / MANIFEST).read_bytes()

    manifest = Manifest.read(child)

    assert manifest.payload() == data
    assert manifest.sha256 == hashlib.sha256(data).hexdigest()
    assert Manifest.parse(data) == manifest


def test_manifest_tells_what_a_derivation_needs_to_go_on(child, pinned):
    manifest = Manifest.read(child)

    assert manifest.relation == "adapter"
    assert manifest.derivation_id.startswith("c0ffee")
    assert manifest.definition.adapter == "lora"
    assert manifest.definition.recipe["fit"] == {"learning_rate": 5e-4}
    assert manifest.definition.task == {"text_classification": {"text": "text"}}
    assert manifest.definition.data == {"source": "sample:x"}
    assert manifest.definition.seed == 7
    assert manifest.parents[0].manifest_sha256 == pinned.sha256


def test_pinning_the_same_base_twice_gives_the_same_bytes():
    first = Manifest.pin("base", DIGESTS, source="org/base", revision="1" * 40)
    second = Manifest.pin("base", DIGESTS, source="org/base", revision="1" * 40)

    assert first.payload() == second.payload()
    assert b"Z" not in first.payload()
    assert first.derivation_id is None
    assert first.parents == ()
    # The bytes are a format: this digest may only change together with the URN of the build type.
    assert first.sha256 == "1fc0697429f9c220bd5a074fd365299a1e9d7b4a44bbfd47f24d48663a63a131"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"_type":"https://in-toto.io/Statement/v1"', b'"_type":"x"', "WRONG_TYPE"),
        (b"https://slsa.dev/provenance/v1", b"https://slsa.dev/provenance/v2", "WRONG_TYPE"),
        (b"urn:reuselib:derivation:v1", b"urn:reuselib:derivation:v9", "WRONG_TYPE"),
        (b'"_type":', b'"_more":1,"_type":', "UNKNOWN_FIELD"),
        (b'"buildDefinition":', b'"b":1,"buildDefinition":', "UNKNOWN_FIELD"),
        (b'"name":"child"', b'"nam":"child"', "UNKNOWN_FIELD"),
        (b'"name":"child"', b'"name":1', "BAD_MANIFEST"),
        (b'"seed":7', b'"seed":"7"', "BAD_MANIFEST"),
        (b'"seed":7', b'"seed":7.5', "BAD_MANIFEST"),
        (b'"seed":7', b'"seed":7.0', "BAD_MANIFEST"),
        (b'"seed":7', b'"seed": 7', "BAD_JSON"),
        (b'"seed":7', b'"seed":7,"seed":7', "BAD_JSON"),
        (b'"name":"child"', b'"name":"\\u0063hild"', "BAD_JSON"),
    ],
)
def test_edited_manifest_is_refused(child, old, new, code):
    data = (child / MANIFEST).read_bytes()
    assert data.count(old) == 1

    with pytest.raises(IntegrityError) as caught:
        Manifest.parse(data.replace(old, new), path=MANIFEST)

    assert (caught.value.code, caught.value.path) == (code, MANIFEST)


def test_two_subjects_are_refused(pinned):
    statement = pinned.statement()
    statement["subject"] *= 2

    with pytest.raises(IntegrityError, match="expected one subject, got 2"):
        Manifest.parse(canonical.dumps(statement))


def test_folder_without_a_manifest_is_a_source_error(base):
    with pytest.raises(SourceError, match=r"no readable lineage/manifest\.json"):
        Manifest.read(base)


@given(st.data())
def test_damaged_bytes_are_refused_or_read_as_they_stand(data):
    good = bytearray(Manifest.pin("base", DIGESTS, source="org/base").payload())
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))

    try:
        manifest = Manifest.parse(bytes(good))
    except IntegrityError:
        return
    assert manifest.payload() == bytes(good)
