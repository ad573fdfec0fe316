from __future__ import annotations

import json
import re

import pytest

from reuselib.cli.tree import show_trace
from reuselib.forensics.drawing import plain
from reuselib.forensics.trace import trace
from reuselib.testing.histories import base, child

HOSTILE = 'a"];\n} evil -> b [x="\\" #quot; <script>`|\u202e\x1b[31m[bold red]\u2028&é'


@pytest.fixture
def hostile(tmp_path):
    teacher = child(HOSTILE, [("base", base())], adapter=HOSTILE, recipe={HOSTILE: HOSTILE})
    top = child("m", [("base", base()), ("teacher", teacher)], recipe={"train": [HOSTILE]})
    return trace(top.write(tmp_path / "m"))


def test_dot_holds_hostile_names_inside_its_quotes(hostile):
    """The grammar of dot, line by line: nothing but our own statements."""
    text = hostile.drawn("dot")
    string = r'"(?:[^"\\\n]|\\.)*"'
    node = rf"  n\d+ \[label={string}\];"
    edge = rf"  n\d+ -> n\d+ \[label={string}(?:, style=\w+)?\];"
    lines = text.splitlines()

    assert lines[:3] == ["digraph lineage {", "  rankdir=BT;", "  node [shape=box];"]
    assert lines[-1] == "}"
    assert all(re.fullmatch(f"(?:{node}|{edge})", line) for line in lines[3:-1])
    assert len(lines[3:-1]) == len(hostile.nodes) + len(hostile.edges)


def test_mermaid_holds_hostile_names_inside_its_quotes(hostile):
    label = r"(?:[\w .,:=()/@-]|#\d+;|<br/>)*"
    node, edge = rf'  n\d+\["{label}"\]', rf'  n\d+ (?:-->|-\.->)\|"{label}"\| n\d+'
    first, *lines = hostile.drawn("mermaid").splitlines()

    assert first == "flowchart BT"
    assert all(re.fullmatch(f"(?:{node}|{edge})", line) for line in lines), lines
    assert len(lines) == len(hostile.nodes) + len(hostile.edges)


def test_prov_is_a_document_whose_parts_refer_to_one_another(hostile):
    """The structure that the W3C submission prescribes: tables by kind, qualified names, attributes by prefix."""
    document = json.loads(hostile.drawn("prov"))
    kinds = {
        "wasGeneratedBy": {"prov:entity": "entity", "prov:activity": "activity"},
        "used": {"prov:activity": "activity", "prov:entity": "entity"},
        "wasDerivedFrom": {"prov:generatedEntity": "entity", "prov:usedEntity": "entity"},
    }
    prefixes = {*document.pop("prefix"), "prov", "xsd", "_"}

    assert set(document) == {"entity", "activity", *kinds}
    for table in document.values():
        for name, attributes in table.items():
            prefix, _, local = name.partition(":")
            assert prefix in prefixes
            assert re.fullmatch(r"[\w-]+", local, re.ASCII)
            assert all(re.fullmatch(r"(prov|reuselib):\w+", key) for key in attributes)
    for kind, ends in kinds.items():
        for attributes in document[kind].values():
            assert all(attributes[key] in document[table] for key, table in ends.items())
    assert len(document["entity"]) == len(hostile.nodes)
    assert len(document["activity"]) == sum(1 for node in hostile.nodes if node.adapter)
    assert len(document["wasDerivedFrom"]) == len(hostile.edges)
    labels = {each["prov:label"] for each in document["entity"].values()}
    assert HOSTILE in labels, "JSON has its own way to write it, so nothing is lost"


def test_the_screen_shows_hostile_names_on_one_line_and_obeys_nothing_in_them(hostile, capsys):
    show_trace(hostile)

    out = capsys.readouterr().out
    assert "[bold red]" in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\u2028" not in out
    assert r"\u202e" in out
    tree = out.split("not checked:")[0].splitlines()
    assert len(tree) == sum(1 for _ in hostile.lines()) + 2


def test_plain_text_is_one_line_of_bounded_length():
    assert plain("a\nb\x00\u00a0c d é") == r"a\u000ab\u0000\u00a0c d é"
    assert len(plain("x" * 10_000)) < 300
