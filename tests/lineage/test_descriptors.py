from __future__ import annotations

import hashlib

import pytest

from reuselib.errors import IntegrityError
from reuselib.lineage.descriptors import Descriptor, Parent, parse_descriptors, parse_identity
from reuselib.lineage.digest import Digests
from reuselib.lineage.reading import Fields

HEX = "ab" * 32


def parse(*items):
    return parse_descriptors(Fields({"list": list(items)}, "", ("list",), ""), "list")


def test_descriptor_is_read_back():
    item = Descriptor(
        name="data",
        role="dataset",
        uri="sample:senses",
        digest={"rowsHash1": HEX},
        media_type="x/y",
        annotations={"split": "train", "rows": 5},
    )

    assert parse(item.to_json()) == (item,)


def test_parent_is_a_model_and_its_manifest():
    parent = Parent("base", "base", "file:base", Digests(HEX, HEX), "cd" * 32, {"license": "MIT"})

    model, statement = parent.descriptors()

    assert model.digest == {"dirHash": HEX, "tensorHash1": HEX}
    assert model.annotations == {"license": "MIT"}
    assert (statement.name, statement.digest) == ("base.statement", {"sha256": "cd" * 32})
    assert statement.annotations == {"of": "base"}


@pytest.mark.parametrize(
    ("digest", "code"),
    [
        ({"md5": "0" * 31 + "1"}, "WEAK_DIGEST"),
        ({"sha1": "0" * 39 + "1"}, "WEAK_DIGEST"),
        ({"own": "1"}, "WEAK_DIGEST"),
        ({"sha256": "0" * 64}, "WEAK_DIGEST"),
        ({"dirHash": hashlib.sha256(b"").hexdigest()}, "WEAK_DIGEST"),
        ({"sha256": "AB" * 32}, "BAD_MANIFEST"),
        ({"sha256": "ab" * 31}, "BAD_MANIFEST"),
        ({"sha256": HEX + "\n"}, "BAD_MANIFEST"),
        ({"sha256": 1}, "BAD_MANIFEST"),
    ],
)
def test_digest_that_proves_nothing_is_refused(digest, code):
    with pytest.raises(IntegrityError) as caught:
        parse({"name": "x", "digest": digest, "annotations": {"role": "base"}})

    assert caught.value.code == code


def test_commit_alone_may_stand_for_code():
    item = {"name": "x", "digest": {"gitCommit": "ab" * 20}, "annotations": {"role": "code"}}

    assert parse(item)[0].digest == {"gitCommit": "ab" * 20}


def test_two_entries_of_one_name_are_refused():
    item = Descriptor(name="x", role="code").to_json()

    with pytest.raises(IntegrityError, match="two entries of one name"):
        parse(item, item)


@pytest.mark.parametrize("annotations", [{}, {"role": 1}])
def test_role_is_needed(annotations):
    with pytest.raises(IntegrityError, match="BAD_MANIFEST"):
        parse({"name": "x", "annotations": annotations})


@pytest.mark.parametrize("digest", [{}, {"dirHash": HEX}, {"tensorHash1": HEX}, {"sha256": HEX}])
def test_model_needs_both_digests(digest):
    with pytest.raises(IntegrityError, match="a model needs dirHash and tensorHash1"):
        parse_identity(digest, Fields({}, "", (), ""))
