from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chains import LORA, TUNE, run
from reuselib.adapter import ModelRef
from reuselib.adapters.finetune import FineTune
from reuselib.data import Data, Splits
from reuselib.derivation.comparing import compare_models
from reuselib.errors import DataError, SourceError
from reuselib.model.figures import read_figures
from reuselib.progress import Progress
from reuselib.recipe import Recipe
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_bert, tiny_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base without a head and two children of it, made on rows in files."""
    folder = tmp_path_factory.mktemp("place")
    base, data = tiny_bert(folder / "bert"), write_rows(folder / "rows", 32)
    tuned = run(TUNE, base, folder / "store", data=data).children[0]
    lora = run(LORA, base, folder / "store", data=data).children[0]
    recipe = Recipe(
        base=ModelRef(str(base)), task=TextClassification(), data=data, steps=(FineTune(),)
    )
    return base, tuned, lora, recipe, folder / "store"


def compared(place, *models, **other):
    _, _, _, recipe, store = place
    return compare_models([str(each) for each in models], recipe=recipe, store=store, **other)


def test_figures_are_those_of_the_record(place):
    _, tuned, lora, *_ = place

    found = compared(place, tuned.folder, lora.folder)

    for model, child in zip(found.models, (tuned, lora), strict=True):
        recorded = read_figures(child.folder)
        mine = {name: model.figures[name] for name in recorded.after}
        assert mine == pytest.approx(dict(recorded.after))
        assert {n: model.figures[n] for n in recorded.quality} == pytest.approx(
            dict(recorded.quality)
        )
        assert model.intervals.keys() == recorded.intervals["after"].keys()
        for name, interval in model.intervals.items():
            assert interval == pytest.approx(recorded.intervals["after"][name])
        for name in ("num_parameters", "num_bytes", "flops"):
            assert model.figures[name] == recorded.cost[name]
        assert model.dir_hash == child.manifest.digests.dir_hash
    assert found.test == read_figures(tuned.folder).test


def test_later_models_are_held_against_the_first(place):
    _, tuned, lora, *_ = place

    first, same, other = compared(place, tuned.folder, tuned.folder, lora.folder).models

    assert (first.drift, first.changes) == ({}, {})
    assert "speedup" not in first.figures
    assert (same.figures["agreement"], same.figures["kl"]) == (1, 0)
    assert all(each == [0, 0] for each in same.changes.values())
    assert other.figures["kl"] > 0
    assert {"speedup", "speedup_batch32"} <= other.figures.keys()


def test_a_base_can_be_compared_and_chance_is_named(place):
    base, tuned, *_ = place

    found = compared(place, base, tuned.folder)

    assert [each.chance for each in found.models] == [True, False]
    assert found.models[0].figures["accuracy"] >= 0


def test_all_of_it_is_json(place):
    _, tuned, lora, *_ = place

    told = compared(place, tuned.folder, lora.folder).to_json()

    assert json.loads(json.dumps(told, allow_nan=False))["metric"] == "accuracy"
    assert told["protocol"]["batch_sizes"] == [1, 32]


def test_progress_is_reported(place):
    _, tuned, lora, *_ = place
    seen: list[Progress] = []

    compared(place, tuned.folder, lora.folder, report=seen.append)

    assert [(each.done, each.total) for each in seen] == [(0, 2), (1, 2), (2, 2)]


class TestRecorded:
    """Without a recipe, task and rows are those of the first record that names them."""

    @pytest.fixture
    def sampled(self, tmp_path, monkeypatch):
        """A child that was made on rows which can be found again."""
        from reuselib.data import data as room

        rows = write_rows(tmp_path / "rows", 16)
        monkeypatch.chdir(tmp_path)
        loaded = rows.load()
        monkeypatch.setattr(room.Data, "load", lambda self: loaded)
        monkeypatch.setattr(room.Data, "pin", lambda self, splits: replace(self, test="test"))
        base = tiny_bert(tmp_path / "bert")
        data = Data(source="sample:senses")
        return base, run(TUNE, base, tmp_path / "store", data=data).children[0], tmp_path / "store"

    def test_they_are_used(self, sampled):
        base, child, store = sampled

        found = compare_models([str(base), str(child.folder)], store=store)

        assert found.models[1].figures["loss"] == pytest.approx(
            read_figures(child.folder).after["loss"]
        )

    def test_rows_that_changed_are_refused(self, sampled, monkeypatch):
        from reuselib.data import data as room

        base, child, store = sampled
        loaded = Splits.of(tiny_rows(20, seed=5), tiny_rows(20, seed=6))
        monkeypatch.setattr(room.Data, "load", lambda self: loaded)

        with pytest.raises(DataError, match="no longer those") as caught:
            compare_models([str(base), str(child.folder)], store=store)

        assert "--recipe" in caught.value.fix


def test_rows_of_somebodys_files_are_asked_for(place):
    _, tuned, lora, _, store = place

    with pytest.raises(DataError, match="only its maker can find") as caught:
        compare_models([str(tuned.folder), str(lora.folder)], store=store)

    assert "--recipe" in caught.value.fix


def test_bases_alone_say_nothing_of_what_they_are_for(place):
    base, *_, store = place

    with pytest.raises(SourceError, match="none of these models says"):
        compare_models([str(base), str(base)], store=store)


def test_a_recipe_without_rows_is_told(place):
    base, tuned, _, recipe, store = place

    with pytest.raises(DataError, match="no data"):
        compare_models(
            [str(base), str(tuned.folder)], recipe=replace(recipe, data=None), store=store
        )
