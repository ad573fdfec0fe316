from __future__ import annotations

import pytest

from reuselib.errors import IntegrityError
from reuselib.lineage.reading import Fields


def fields(value):
    return Fields(value, "top", ("name", "count", "flag", "map", "items"), "x.json")


def test_fields_are_read_by_name_and_type():
    read = fields({"name": "a", "count": 3, "flag": True, "map": {"k": "v"}, "items": [{"a": 1}]})

    assert read.get("name", str) == "a"
    assert read.get("count", int) == 3
    assert read.get("flag", bool) is True
    assert read.texts("map") == {"k": "v"}
    assert [item.where for item in read.objects("items", ("a",))] == ["top.items[0]"]


def test_absent_fields_have_their_default():
    read = fields({})

    assert read.find("count", int, 5) == 5
    assert read.optional("name", str) is None
    assert read.texts("map") == {}
    assert read.objects("items", ()) == []


def test_unknown_field_is_named_with_the_nearest_known_one():
    with pytest.raises(
        IntegrityError, match=r"top.nam has no meaning here; did you mean 'name'\?"
    ) as caught:
        fields({"nam": 1})

    assert (caught.value.code, caught.value.path) == ("UNKNOWN_FIELD", "x.json")


@pytest.mark.parametrize(
    ("value", "ask"),
    [
        ({"count": True}, lambda read: read.get("count", int)),
        ({"count": "1"}, lambda read: read.get("count", int)),
        ({"name": None}, lambda read: read.optional("name", str)),
        ({"map": {"k": 1}}, lambda read: read.texts("map")),
        ({"items": [1]}, lambda read: read.objects("items", ())),
        ({}, lambda read: read.get("name", str)),
        ([], lambda read: read),
    ],
)
def test_wrong_kind_is_refused_with_its_place(value, ask):
    with pytest.raises(IntegrityError, match=r"x\.json: top") as caught:
        ask(fields(value))

    assert caught.value.code == "BAD_MANIFEST"


def test_a_message_does_not_hold_what_the_file_holds():
    with pytest.raises(IntegrityError) as caught:
        fields({"name": ["x" * 10**6] * 3}).get("name", str)

    assert "list of 3 items" in str(caught.value)
    assert len(str(caught.value)) < 200
