from __future__ import annotations

import json

import pytest

from reuselib.errors import IntegrityError
from reuselib.model.figures import Figures, read_figures


def test_figures_come_back_as_they_were_stored(tmp_path):
    figures = Figures(
        metric="accuracy",
        before={"accuracy": 0.5},
        after={"accuracy": 0.75},
        reference={"name": "linear", "accuracy": 0.6},
        step={"train_loss": 0.25},
        cost={"num_parameters": 10, "seconds": 1.5},
        test={"rows": 16, "digest": "1" * 64},
    )
    (tmp_path / "lineage").mkdir()
    (tmp_path / "lineage/metrics.json").write_text(json.dumps(figures.to_json()))

    assert read_figures(tmp_path) == figures


def test_a_base_has_none(tmp_path):
    assert read_figures(tmp_path) == Figures()
    assert Figures().to_json() == {
        "metric": "",
        **{name: {} for name in ("before", "after", "reference", "step", "cost", "test")},
    }


def test_the_figures_of_a_child_are_those_in_its_record(chain):
    stored = json.loads((chain.lora.folder / "lineage/metrics.json").read_text())

    assert read_figures(chain.lora.folder).to_json() == stored


def test_a_file_of_figures_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "lineage").mkdir()
    (tmp_path / "lineage/metrics.json").write_text("{")

    with pytest.raises(IntegrityError, match="BAD_JSON"):
        read_figures(tmp_path)
