from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reuselib.errors import RecipeError
from reuselib.values.document import MAX_BYTES, parse, spell

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("ab\u00e9:#- \n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def fault(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(text, "r.yaml")
    return str(caught.value)


def noted(text: str) -> list[str]:
    return [str(problem) for problem in parse(text, "r.yaml").problems]


@given(JSON)
def test_what_another_writer_wrote_is_read(value):
    assert parse(yaml.safe_dump(value, allow_unicode=True)).value == value


def test_each_value_knows_its_line():
    document = parse("base:\n  source: x\nsteps:\n  - lora:\n      r: 3\n", "r.yaml")

    assert document.where(("steps", 0, "lora", "r")) == "r.yaml:5"
    assert document.where(("steps", 0, "lora", "nowhere", 7)) == "r.yaml:4"
    assert document.where(()) == "r.yaml:1"


def test_a_path_is_spelt_as_in_python():
    assert spell(("steps", 0, "lora", "r")) == "steps[0].lora.r"


def test_nothing_is_ever_constructed():
    assert noted("a: !!python/object/apply:os.getcwd []\n") == [
        "r.yaml:1: a: the tag `!!python/object/apply:os.getcwd` is not allowed: a recipe is plain data; remove it"
    ]


def test_aliases_are_refused_and_never_expanded():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{after}: &{after} [*{before}, *{before}]\n"
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    )

    problems = noted(bomb)

    assert problems[0] == "r.yaml:1: a: `&a`: anchors and aliases are not allowed; write it out"
    assert len(problems) == 9 + 16


def test_a_repeated_key_is_reported_with_both_lines():
    assert noted("a: 1\nb: 2\na: 3\n") == [
        "r.yaml:3: a: `a` is given twice; the first is at r.yaml:1. Keep one"
    ]


def test_a_second_document_is_reported():
    assert "a second document" in noted("a: 1\n---\nb: 2\n")[0]


def test_a_key_that_is_not_a_name_is_reported():
    assert "a key must be a name" in noted("? [a]\n: 1\n")[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base:\n\tsource: x\n", "r.yaml:2: the line is indented with a tab; YAML wants spaces"),
        ("a: b: c\n", "r.yaml:1: a `key: value` where none can be"),
        ("base\nsteps: 1\n", "write the colon that is missing in the line above"),
        ("a:\n  - b:\n      c: 1\n     d: 2\n", "r.yaml:4: the indentation does not fit"),
        ("a: {b: 1\nc: 2\n", "r.yaml:1: a `{` or `[` is not closed"),
        ('a: "b\n', "r.yaml:1: the file ends inside quotes"),
        ("a: 1\nb\n", "r.yaml:2: a key without a colon"),
        ("a: 1\nb: \x07\n", "r.yaml:2: the character U+0007 is not allowed"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than 32 levels"),
        ("a: " + "x" * MAX_BYTES, "characters, but a recipe has at most"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(text, told):
    assert told in fault(text)


def test_an_empty_text_is_nothing():
    assert parse("").value is None
    assert parse("# only a comment\n").value is None


@pytest.mark.parametrize(
    "path", [(), ("seed",), ("steps", 0, "lora", "r"), ("gates", 3, "latency_p50"), (2, 1, "a")]
)
def test_a_path_that_was_spelled_can_be_read_again(path):
    from reuselib.values.document import spell, unspell

    assert unspell(spell(path)) == path


@pytest.mark.parametrize("unit", ["- a\n", "- [a, b]\n", "- {a: b}\n"])
def test_many_values_are_refused_before_they_keep_the_parser_busy(monkeypatch, unit):
    monkeypatch.setattr("reuselib.values.document.MAX_VALUES", 100)
    many = 100 // unit.count("a") // (1 + unit.count("b"))

    with pytest.raises(RecipeError, match="more than 100 values"):
        parse(unit * 101)
    assert parse(unit * (many // 2)).value
