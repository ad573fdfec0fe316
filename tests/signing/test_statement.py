from __future__ import annotations

import hashlib
import json

import pytest

from reuselib.errors import IntegrityError
from reuselib.signing.statement import parse_statement

A, B = "a" * 64, "b" * 64


def root(*digests: str) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def statement(*resources, **serialization):
    """As the official package writes it."""
    resources = resources or (("config.json", A), ("model.safetensors", B))
    described = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    described |= serialization
    algorithm = described["hash_type"]
    if described["method"] == "shards":
        algorithm += f"-sharded-{int(described['shard_size'])}"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": root(*(item[1] for item in resources))}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": described,
            "resources": [
                {"name": item[0], "digest": item[1], "algorithm": algorithm} for item in resources
            ],
        },
    }


def parse(value):
    return parse_statement(json.dumps(value).encode())


def code(value) -> str:
    with pytest.raises(IntegrityError) as caught:
        parse(value)
    assert caught.value.path == "model.sig"
    return caught.value.code


def test_an_honest_statement_is_read():
    found = parse(statement(ignore_paths=["model.sig", ".git/"]))

    assert found.files == {"config.json", "model.safetensors"}
    assert [each.digest for each in found.resources] == [A, B]
    assert found.ignored == ("model.sig", ".git")
    assert found.ignores(".git/x")
    assert not found.ignores(".gitx")


def test_fields_of_later_versions_in_the_predicate_are_ignored():
    value = statement()
    value["predicate"]["later"] = {"x": 1}

    assert parse(value).files


def test_pieces_are_read_although_their_size_is_a_float():
    found = parse(statement(("w:0:4", A), ("w:4:6", B), method="shards", shard_size=4.0))

    assert [(each.file, each.start, each.end) for each in found.resources] == [
        ("w", 0, 4),
        ("w", 4, 6),
    ]


PATHS = ["", ".", "..", "../x", "a/../x", "a//b", "/etc/passwd", "a/.", "C:/x", "a\\b", "a\0b", "a/", "a."]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leads_elsewhere_is_refused(path):
    assert code(statement(("x", A), (path, B))) == "UNSAFE_PATH"


@pytest.mark.parametrize("path", [*(path for path in PATHS if path != "a/"), 7, None])
def test_an_ignored_path_that_hides_anything_is_refused(path):
    assert code(statement(ignore_paths=[path])) == "BAD_IGNORE"


def edited(**changes):
    return {**statement(), **changes}


def with_resource(**changes):
    value = statement()
    value["predicate"]["resources"][0] |= changes
    return value


def empty():
    value = statement(("x", A))
    value["predicate"]["resources"] = []
    value["subject"][0]["digest"]["sha256"] = root()
    return value


def without(field):
    value = statement()
    del value["predicate"]["resources"][0][field]
    return value


OTHERS = {
    "another type": (edited(_type="https://in-toto.io/Statement/v0.1"), "WRONG_TYPE"),
    "before 1.0": (edited(predicateType="https://model_signing/Digests/v0.1"), "WRONG_TYPE"),
    "unknown method": (statement(method="tensors"), "WRONG_TYPE"),
    "no subject": (edited(subject=[]), "BAD_SIGNATURE"),
    "subject of something else": (
        edited(subject=[{"name": "m", "digest": {"sha256": A}}]),
        "BAD_SIGNATURE",
    ),
    "subject by another digest": (
        edited(subject=[{"name": "m", "digest": {"sha512": A * 2}}]),
        "BAD_SIGNATURE",
    ),
    "no predicate": ({k: v for k, v in statement().items() if k != "predicate"}, "BAD_SIGNATURE"),
    "about nothing": (empty(), "UNSIGNED"),
    "one file twice": (statement(("x", A), ("x", B)), "BAD_SIGNATURE"),
    "links followed": (statement(allow_symlinks=True), "UNSAFE_PATH"),
    "weak digest": (statement(hash_type="md5"), "WEAK_DIGEST"),
    "digest of another kind": (with_resource(algorithm="md5"), "WEAK_DIGEST"),
    "upper-case digest": (with_resource(digest=A.upper()), "BAD_SIGNATURE"),
    "short digest": (with_resource(digest=A[:40]), "BAD_SIGNATURE"),
    "field unknown": (with_resource(size=4), "UNKNOWN_FIELD"),
    "field missing": (without("digest"), "BAD_SIGNATURE"),
    "name no text": (with_resource(name=7), "BAD_SIGNATURE"),
    "piece without offsets": (statement(("w", A), method="shards", shard_size=4), "WRONG_TYPE"),
    "colon in a piece": (statement(("a:b:0:4", A), method="shards", shard_size=4), "WRONG_TYPE"),
    "piece too large": (statement(("w:0:5", A), method="shards", shard_size=4), "BAD_SIGNATURE"),
    "piece backwards": (statement(("w:4:4", A), method="shards", shard_size=4), "BAD_SIGNATURE"),
    "no size of pieces": (
        {**statement(), "predicate": {**statement()["predicate"], "serialization": {"method": "shards", "hash_type": "sha256"}}},
        "BAD_SIGNATURE",
    ),
    "half a byte": (statement(("w:0:1", A), method="shards", shard_size=1.5), "BAD_SIGNATURE"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_has_no_meaning_or_two_is_refused(case):
    value, expected = OTHERS[case]

    assert code(value) == expected


def test_more_than_anybody_ignores_is_refused():
    assert code(statement(ignore_paths=["x"] * 10_001)) == "LIMIT"


@pytest.mark.parametrize("form", ["[]", "null", "{", '{"a": NaN}', "7"])
def test_other_json_is_refused(form):
    with pytest.raises(IntegrityError) as caught:
        parse_statement(form.encode())

    assert caught.value.code in ("BAD_JSON", "BAD_SIGNATURE")


def test_a_key_given_twice_is_refused():
    text = json.dumps(statement()).replace('"predicateType"', '"_type": "x", "predicateType"')

    with pytest.raises(IntegrityError, match="occurs twice"):
        parse_statement(text.encode())
