from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from golden import CHILDREN, golden
from reuselib.errors import IntegrityError
from reuselib.lineage import canonical, definition, descriptors
from reuselib.lineage.digest import Digests
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.schema import manifest_schema

SCHEMA = manifest_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
MANIFESTS = [
    *(golden(name) / "lineage/manifest.json" for name in CHILDREN),
    *sorted(golden("distill").glob("lineage/ancestors/*.json")),
]
ACROSS = (
    "'inputs' does not name",
    "has two entries of one name",
    "every parent needs the digest of its manifest",
)
"""What no schema can say, because it lies between two parts of a manifest."""
FREE = ("recipe", "task", "data", "structure", "rebuild", "facts")
"""Where a manifest may hold anything; the keys of these are their owners' business."""
OTHER_VALUES: tuple[Any, ...] = (None, 3, 0.5, "", "x", [], [3], {}, {"x": 3})


def statement(path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def refusal(value: Any) -> str:
    """Why the parser refuses a statement, empty if it does not."""
    try:
        Manifest.parse(canonical.dumps(value))
    except IntegrityError as error:
        return str(error)
    return ""


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a statement that has a form, outside the free maps."""
    if at:
        yield at
    if at and at[-1] in FREE and "buildDefinition" in at:
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for key, each in items:
        yield from places(each, (*at, key))


def changed(value: Any, at: tuple[Any, ...], change) -> Any:
    new = copy.deepcopy(value)
    inside = new
    for key in at[:-1]:
        inside = inside[key]
    change(inside, at[-1])
    return new


def mutations(value: Any) -> Iterator[tuple[str, Any]]:
    """A statement with one thing changed, at every place: taken away, of another kind, or with something more."""
    for at in places(value):
        yield f"without {at}", changed(value, at, lambda inside, key: inside.pop(key))
        for other in OTHER_VALUES:
            yield f"{at} = {other!r}", changed(value, at, lambda i, k, o=other: i.__setitem__(k, o))

        def more(inside, key):
            if isinstance(inside[key], dict):
                inside[key]["more"] = "x"
            elif isinstance(inside[key], list):
                inside[key].extend(copy.deepcopy(inside[key][:1]))
            elif isinstance(inside[key], str):
                inside[key] += "0"

        yield f"more {at}", changed(value, at, more)


def test_it_is_a_schema_that_describes_every_field():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    unexplained = []

    def look(part: Any, at: str) -> None:
        for name, each in part.get("properties", {}).items():
            if each is not False and "then" not in at and "if" not in at and "else" not in at:
                target = each.get("$ref", "").rpartition("/")[2]
                said = each.get("description") or SCHEMA["$defs"].get(target, {}).get("description")
                if not said:
                    unexplained.append(f"{at}/{name}")
        for key, each in part.items():
            for index, inside in enumerate(each) if isinstance(each, list) else [("", each)]:
                if isinstance(inside, dict):
                    look(inside, f"{at}/{key}{index}")

    look(SCHEMA, "")
    # what a condition repeats to name a place in it, it need not explain again
    assert [each for each in unexplained if "allOf" not in each and "contains" not in each] == []


def test_its_words_are_those_of_the_parser():
    build = SCHEMA["properties"]["predicate"]["properties"]["buildDefinition"]["properties"]
    external = build["externalParameters"]["properties"]
    roles = SCHEMA["$defs"]["dependency"]["properties"]["annotations"]["properties"]["role"]["enum"]

    assert set(external) == set(definition._EXTERNAL)
    assert set(build["internalParameters"]["properties"]) == set(definition._INTERNAL)
    assert external["relation"]["enum"] == [*definition.RELATIONS]
    assert roles == [*descriptors.ROLES]
    assert set(external["inputs"]["properties"]) == set(roles) - set(definition._NO_INPUTS)
    digests = SCHEMA["$defs"]["digestSet"]["properties"]
    assert set(digests) == {*descriptors._HEX, *descriptors._WEAK}
    assert set(SCHEMA["$defs"]["dependency"]["properties"]) == set(descriptors._FIELDS)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parts[-3]}-{path.stem[:8]}")
def test_every_honest_manifest_is_valid(path):
    assert [*VALIDATOR.iter_errors(statement(path))] == []


def test_a_pinned_base_is_valid():
    pinned = Manifest.pin("b", Digests("ab" * 32, "cd" * 32), source="o/b", revision="1" * 40)

    assert [*VALIDATOR.iter_errors(pinned.statement())] == []


@pytest.mark.parametrize("name", ["distill", "pin"])
def test_parser_and_schema_refuse_the_same_mutations(name):
    if name == "pin":
        whole = Manifest.pin("b", Digests("ab" * 32, "cd" * 32), source="o/b").statement()
    else:
        whole = statement(golden(name) / "lineage/manifest.json")
        # names of tensors can be many; two of each list are as good
        internal = whole["predicate"]["buildDefinition"]["internalParameters"]
        internal |= {"structure": None, "rebuild": [{}]}
        internal |= {"fresh": ["a"], "requires": ["b"], "dropped": ["c"], "renamed": {"d": "e"}}
    assert refusal(whole) == ""
    count = 0
    for what, mutated in mutations(whole):
        why = refusal(mutated)
        valid = VALIDATOR.is_valid(mutated)
        if not why:
            assert valid, f"the schema refuses what is a manifest: {what}"
        elif not any(each in why for each in ACROSS):
            assert not valid, f"the schema takes what is no manifest: {what}: {why}"
        count += bool(why)

    assert count > 100


@pytest.mark.parametrize(
    "digest",
    [
        {"sha256": "0" * 64},
        {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"sha256": "AB" * 32},
        {"sha256": "ab" * 31},
        {"md5": "ab" * 16},
        {"sha1": "ab" * 20, "gitCommit": "ab" * 20},
        {"sha256": "ab" * 32, "crc": "1"},
        {"sha256": "ab" * 32, "md5": ""},
        {"gitCommit": "0000"},
    ],
)
def test_weak_digests_are_refused_by_both(digest):
    whole = statement(MANIFESTS[0])
    rows = whole["predicate"]["runDetails"]["byproducts"][0]
    rows["digest"] = digest

    assert refusal(whole)
    assert not VALIDATOR.is_valid(whole)


@pytest.mark.parametrize(
    "digest", [{"gitCommit": "ab"}, {"sha512": "ab" * 64, "md5": "cd"}, {"rowsHash1": "ab" * 32}]
)
def test_odd_but_good_digests_are_taken_by_both(digest):
    whole = statement(MANIFESTS[0])
    whole["predicate"]["runDetails"]["byproducts"][0]["digest"] = digest

    assert refusal(whole) == ""
    assert VALIDATOR.is_valid(whole)


@pytest.mark.parametrize("of", [3, None, ["data"], "nobody"])
def test_a_parents_manifest_names_its_parent_by_text(of):
    """A number that looks like the name of a parent would be found by nobody."""
    whole = statement(MANIFESTS[0])
    build = whole["predicate"]["buildDefinition"]
    model, manifest = build["resolvedDependencies"][:2]
    model["name"] = str(of)
    build["externalParameters"]["inputs"]["base"] = [str(of)]
    manifest["annotations"]["of"] = of

    why = refusal(whole)

    assert bool(why) == (of != "nobody")
    assert not why or re.search("every parent needs", why)
