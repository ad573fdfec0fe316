from __future__ import annotations

import pytest

from chains import LORA, run
from reuselib.data import Data
from reuselib.data.terms import stated_terms
from reuselib.lineage.licence import carded_licence
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_bert


@pytest.mark.parametrize(
    ("front", "name"),
    [
        ("license: cc-by-4.0", "cc-by-4.0"),
        ('license: "mit"', "mit"),
        ("license:\n- cc-by-sa-3.0\n- gfdl\nlanguage:\n- en", "cc-by-sa-3.0 AND gfdl"),
        ("license:\n  - mit", "mit"),
        ("license: [mit, apache-2.0]", "mit AND apache-2.0"),
        ("language: en", None),
        ("license:", None),
        ("license: {a: b}", None),
        ("other:\n  license: mit", None),
    ],
)
def test_it_reads_what_a_reader_of_yaml_reads(tmp_path, front, name):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\nlicense: gpl-3.0\n")

    assert stated_terms(tmp_path).get("license") == name
    other = carded_licence(tmp_path)
    assert (other.name if other else None) == name


def test_without_a_card_nothing_is_stated(tmp_path):
    assert stated_terms(tmp_path) == {}
    (tmp_path / "README.md").write_text("license: mit\n")
    assert stated_terms(tmp_path) == {}


def test_terms_of_rows_are_recorded(tmp_path):
    data = write_rows(tmp_path / "rows", 24)
    folder = tmp_path / "rows"
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert Data(source=data.source).load().facts["license"] == "cc-by-nc-4.0"

    [child] = run(LORA, tiny_bert(tmp_path / "base"), tmp_path / "store", data=data).children

    [rows] = [each for each in child.manifest.definition.dependencies if each.role == "dataset"]
    assert rows.annotations["license"] == "cc-by-nc-4.0"
