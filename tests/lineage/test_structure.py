from __future__ import annotations

import pytest

from reuselib.errors import IntegrityError
from reuselib.lineage.structure import Structure


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ({}, "structure.a is missing"),
        ({"a": 1, "b": 2, "c": 3}, "structure.c has no meaning"),
    ],
)
def test_what_is_no_such_object_is_refused(value, why):
    with pytest.raises(IntegrityError, match=why) as caught:
        Structure.read(value, ("a",), optional=("b",))
    assert caught.value.code == "BAD_STRUCTURE"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("names", ["a", "b"], [None, "a", [1], ["a", "a"], [["a"]]]),
        ("groups", [["a"], ["b", "c"]], [["a"], [[]], [["a", "a"]], {"a": []}]),
        ("counts", {"a": 0, "b": 3}, [[1], {"a": -1}, {"a": True}, {"a": 1.5}, {"a": "1"}]),
        ("numbers", {"a": 0.5, "b": 3}, [{"a": True}, {"a": None}, {"a": float("inf")}]),
        ("texts", {"a": "b"}, [["a"], {"a": 1}]),
        ("indices", {"a": [0, 2]}, [{"a": []}, {"a": [1, 1]}, {"a": [2, 0]}, {"a": [-1]}]),
        ("number", 1.5, [True, "1", None, [1]]),
        ("flag", False, [0, None, "true"]),
        ("text", "a", [1, None, ["a"]]),
        ("mapping", {"a": 1}, [[], None]),
        ("items", [1, "a"], [{}, "ab", None]),
    ],
)
def test_each_kind_is_read_and_others_are_refused(kind, good, bad):
    read = getattr(Structure.read({"key": good}, ("key",)), kind)("key")
    assert _plain(read) == good

    for value in bad:
        with pytest.raises(IntegrityError, match=r"structure\.key") as caught:
            getattr(Structure.read({"key": value}, ("key",)), kind)("key")
        assert caught.value.code == "BAD_STRUCTURE"


@pytest.mark.parametrize("kind", ["names", "groups", "items"])
def test_an_optional_list_that_is_not_there_is_empty(kind):
    assert list(getattr(Structure.read({}, (), optional=("key",)), kind)("key")) == []


def _plain(value):
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
