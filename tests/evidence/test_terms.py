from __future__ import annotations

import re
from pathlib import Path

import pytest

from reuselib.evidence.terms import LICENCES, TERMS, class_of, judge, keep_each_other

CONFLICT, DOUBT, FINE = "conflict", "doubt", "fine"


def outcome(parent: str, relation, child: str) -> str:
    found = judge(parent, relation, child)
    return CONFLICT if found.conflict else DOUBT if found.doubt else FINE


TABLE = [
    # weights that go on in the child
    ("mit", "derives", "apache-2.0", FINE),
    ("apache-2.0", "derives", "mit", FINE),
    ("apache-2.0", "derives", "", FINE),
    ("apache-2.0", "derives", "my-own-terms", FINE),
    ("cc0-1.0", "derives", "mit", FINE),
    ("gpl-3.0", "derives", "mit", CONFLICT),
    ("gpl-3.0", "derives", "GPL-3.0-only", FINE),
    ("gpl-3.0", "derives", "agpl-3.0", DOUBT),
    ("agpl-3.0", "derives", "gpl-3.0", CONFLICT),
    ("lgpl-3.0", "derives", "apache-2.0", CONFLICT),
    ("cc-by-sa-4.0", "derives", "mit", CONFLICT),
    ("cc-by-nc-4.0", "derives", "mit", CONFLICT),
    ("cc-by-nc-4.0", "derives", "cc-by-nc-4.0", FINE),
    ("cc-by-nc-4.0", "derives", "cc-by-nc-sa-4.0", DOUBT),
    ("cc-by-nd-4.0", "derives", "cc-by-nd-4.0", CONFLICT),
    ("llama3.1", "derives", "apache-2.0", CONFLICT),
    ("llama3.1", "derives", "llama3.1", FINE),
    ("llama3.1", "derives", "", DOUBT),
    ("gemma", "derives", "my-own-terms", DOUBT),
    ("openrail", "derives", "mit", CONFLICT),
    ("apple-amlr", "derives", "mit", CONFLICT),
    # unknown is not permissive
    ("my-own-terms", "derives", "mit", DOUBT),
    ("", "derives", "mit", DOUBT),
    ("other", "derives", "other", DOUBT),
    # an adapter alone does not hold the parent's weights
    ("gpl-3.0", "adapts", "mit", FINE),
    ("cc-by-nc-4.0", "adapts", "mit", FINE),
    # teachers and rows
    ("cc-by-nc-4.0", "learns from", "mit", DOUBT),
    ("llama3.1", "learns from", "mit", DOUBT),
    ("mit", "learns from", "apache-2.0", FINE),
    ("cc-by-nc-4.0", "trained on", "apache-2.0", DOUBT),
    ("cc-by-4.0", "trained on", "apache-2.0", FINE),
    ("cc-by-nc-4.0", "trained on", "cc-by-nc-4.0", FINE),
    ("", "trained on", "mit", DOUBT),
]


@pytest.mark.parametrize(("parent", "relation", "child", "expected"), TABLE)
def test_the_table_says(parent, relation, child, expected):
    assert outcome(parent, relation, child) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("MIT", "permissive"),
        (" Apache-2.0 ", "permissive"),
        ("MIT AND GPL-3.0-only", "copyleft"),
        ("MIT OR GPL-3.0-only", "permissive"),
        ("mit and nobody-knows", "unknown"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "unknown"),
        ("(MIT)", "unknown"),
        ("", "unknown"),
    ],
)
def test_expressions_are_put_into_classes(name, kind):
    assert class_of(name) == kind


def test_every_class_has_terms():
    assert set(LICENCES.values()) | {"unknown"} == set(TERMS)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("mit", "gpl-3.0", True),
        ("gpl-3.0", "gpl-3.0", True),
        ("gpl-3.0", "cc-by-nc-4.0", False),
        ("llama3.1", "gemma", True),
        ("llama3.1", "gpl-3.0", False),
    ],
)
def test_what_may_go_into_one_model(one, other, together):
    assert keep_each_other(one, other) is together
    assert keep_each_other(other, one) is together


def test_obligations_are_told():
    assert "copyright" in judge("mit", "derives", "mit").obligations[0]
    assert "same licence" in judge("gpl-3.0", "derives", "gpl-3.0").obligations[0]
    assert "needs its base" in judge("llama3.1", "adapts", "mit").obligations[0]


def test_the_page_says_what_the_table_does():
    page = Path(__file__).parents[2] / "docs/how-to/audit-a-model.md"
    rows = re.findall(
        r"^\| ([a-z -]+) \| (`.+?|anything.+?) \|", page.read_text(encoding="utf-8"), re.MULTILINE
    )

    told = {kind: re.findall("`([^`]+)`", names) for kind, names in rows if kind in TERMS}
    assert set(told) == set(TERMS)
    for kind, names in told.items():
        assert {class_of(name) for name in names} <= {kind}
