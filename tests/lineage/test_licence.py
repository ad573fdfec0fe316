from __future__ import annotations

import pytest

from reuselib.lineage.licence import (
    Licence,
    carded_licence,
    inherited,
    licence_of,
    licence_on_card,
)


@pytest.mark.parametrize("licence", [Licence("MIT"), Licence("llama3.1", "inherited")])
def test_what_is_written_is_read(licence):
    assert Licence.parse(licence.to_json()) == licence


@pytest.mark.parametrize("value", [None, "", 7, ["mit"], "a\nb", "<script>", "x" * 300, "é\x1b[0m"])
def test_what_is_no_name_is_no_licence(value):
    assert Licence.parse({"license": value}) is None


@pytest.mark.parametrize(
    ("front", "name"),
    [
        ({"license": "apache-2.0"}, "apache-2.0"),
        ({"license": "other", "license_name": "gemma-terms"}, "gemma-terms"),
        ({"license": "other"}, "other"),
        ({"license": ["mit", "cc-by-4.0", "mit"]}, "mit AND cc-by-4.0"),
        ({"license": []}, None),
        ({"license": ["mit", 3]}, None),
        ({"title": "x"}, None),
    ],
)
def test_a_card_states_terms_in_several_ways(front, name):
    licence = licence_on_card(front)

    assert (licence.name if licence else None) == name


@pytest.mark.parametrize(
    ("licences", "name"),
    [
        ([Licence("MIT")], "MIT"),
        ([Licence("mit"), Licence("MIT", "inherited")], "mit"),
        ([Licence("MIT"), Licence("Apache-2.0")], None),
        ([Licence("MIT"), None], None),
        ([None], None),
        ([], None),
    ],
)
def test_only_the_same_known_terms_of_all_parents_are_inherited(licences, name):
    assert inherited(licences) == (Licence(name, "inherited") if name else None)


def test_a_card_that_cannot_be_read_says_nothing(tmp_path):
    assert carded_licence(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert carded_licence(tmp_path) is None
    (tmp_path / "README.md").write_text("---\n- mit\n---\n")
    assert carded_licence(tmp_path) is None


def test_the_manifest_comes_before_the_card(tmp_path):
    from dataclasses import replace

    from reuselib.lineage.digest import Digests
    from reuselib.lineage.manifest import Manifest

    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    silent = Manifest.pin("base", Digests("1" * 64, "2" * 64), source="file:base")
    told = replace(silent, annotations={"license": "gemma", "license_source": "inherited"})

    assert licence_of(silent, tmp_path) == Licence("mit")
    assert licence_of(told, tmp_path) == Licence("gemma", "inherited")
