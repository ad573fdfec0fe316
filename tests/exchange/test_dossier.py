from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta, timezone

import pytest

from golden import CHILDREN, golden
from reuselib.errors import IntegrityError
from reuselib.exchange.dossier import Dossier, flat, hub_name, interval, stamp, written
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.model.figures import Figures, read_figures


@pytest.mark.parametrize("name", CHILDREN)
def test_all_parts_of_a_record_are_read(name):
    dossier = Dossier.read(golden(name))

    assert dossier.manifest == Manifest.read(golden(name))
    assert dossier.figures == read_figures(golden(name))
    files = [path for path in golden(name).iterdir() if path.is_file()]
    assert set(dossier.files) == {path.name for path in files} - {"README.md", "model.sig"}
    assert set(dossier.parents) == {path.stem for path in golden(name).glob("lineage/ancestors/*")}


class TestRoots:
    def test_a_long_line_ends_in_its_base(self):
        dossier = Dossier.read(golden("distill"))

        assert [root.uri for root in dossier.roots] == ["file:base"]
        assert dossier.root(dossier.manifest.parents[1]).uri == "file:base"

    def test_an_average_has_as_many_as_it_has_sources(self):
        assert [root.uri for root in Dossier.read(golden("average")).roots] == [
            "file:base",
            "file:twin",
        ]

    def test_a_line_ends_where_nothing_more_is_at_hand(self, tmp_path):
        shutil.copytree(golden("distill"), tmp_path / "model")
        shutil.rmtree(tmp_path / "model/lineage/ancestors")

        dossier = Dossier.read(tmp_path / "model")

        assert dossier.ancestors == {}
        assert dossier.roots == (dossier.manifest.parents[0],)


def test_an_import_tells_no_derivation(tmp_path):
    base = Manifest.read(golden("finetune")).parents[0].manifest_sha256
    (tmp_path / "lineage").mkdir()
    shutil.copy(golden("finetune") / f"lineage/ancestors/{base}.json", tmp_path / MANIFEST)

    with pytest.raises(IntegrityError) as caught:
        Dossier.read(tmp_path)

    assert caught.value.code == "MISSING_LINEAGE"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("pkg:huggingface/acme/bert@" + "a" * 40, "acme/bert"),
        ("pkg:huggingface/bert@" + "a" * 40, "bert"),
        ("pkg:pypi/x@1#y/z", "pkg:pypi/x@1#y/z"),
        ("file:base", "file:base"),
    ],
)
def test_a_hub_model_is_named_as_the_hub_does(uri, name):
    assert hub_name(uri) == name


def test_settings_become_single_values():
    nested = {"a": {"b": 1, "c": {"d": None}}, "e": [1, {"f": 2}], "g": {}}

    assert dict(flat(nested)) == {"a.b": 1, "a.c.d": None, "e": [1, {"f": 2}], "g": {}}
    assert dict(flat(nested, "x"))["x.a.b"] == 1
    assert dict(flat({})) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (1.0, "1"),
        (1e-05, "0.00001"),
        (True, "true"),
        (None, "null"),
        ([1, "é"], '[1,"é"]'),
    ],
)
def test_values_become_text_in_one_way(value, text):
    assert written(value) == text


def test_times_are_written_in_utc():
    east = datetime(2026, 1, 31, 1, 0, 0, tzinfo=timezone(timedelta(hours=2)))

    assert stamp(east) == "2026-01-30T23:00:00Z"
    assert stamp(east.astimezone(UTC)) == stamp(east)


@pytest.mark.parametrize("spans", [None, 3, {}, {"a": [1]}, {"a": [1, "2"]}, {"a": {"low": 1}}])
def test_an_interval_that_is_none_is_not_told(spans):
    assert interval(Figures(intervals={"after": spans}), "after", "a") is None
    assert interval(Figures(intervals={"after": {"a": [0.25, 1]}}), "after", "a") == (0.25, 1)
