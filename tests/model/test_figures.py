from __future__ import annotations

import dataclasses
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
        **{each.name: {} for each in dataclasses.fields(Figures) if each.name != "metric"},
    }


def test_the_figures_of_a_child_are_those_in_its_record(chain):
    stored = json.loads((chain.lora.folder / "lineage/metrics.json").read_text())

    assert read_figures(chain.lora.folder).to_json() == stored


def test_a_file_of_figures_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "lineage").mkdir()
    (tmp_path / "lineage/metrics.json").write_text("{")

    with pytest.raises(IntegrityError, match="BAD_JSON"):
        read_figures(tmp_path)


def test_what_an_older_record_does_not_hold_is_empty(tmp_path):
    (tmp_path / "lineage").mkdir()
    (tmp_path / "lineage/metrics.json").write_text('{"metric": "f1", "after": {"f1": 0.5}}')

    figures = read_figures(tmp_path)

    assert (figures.after, figures.drift, figures.flat()) == ({"f1": 0.5}, {}, {"f1": 0.5})


class TestFlat:
    """The one name of each figure."""

    FIGURES = Figures(
        after={"accuracy": 0.5},
        quality={"ece": 0.1},
        step={"train_loss": 0.3},
        cost={"num_bytes": 9, "latency_p50": "unstable"},
        drift={"agreement": 0.9, "classes": [], "worst_class_change": -0.1},
        origin={
            "name": "base",
            "metrics": {"accuracy": 0.6},
            "cost": {"num_bytes": 18},
            "drift": {"agreement": 0.8, "kl": 0.2},
            "speedup": {"speedup": 2.0, "speedup_batch32": "unstable"},
        },
    )

    def test_of_the_child(self):
        assert self.FIGURES.flat() == {
            "accuracy": 0.5,
            "ece": 0.1,
            "step_train_loss": 0.3,
            "num_bytes": 9,
            "latency_p50": "unstable",
            "agreement": 0.9,
            "worst_class_change": -0.1,
            "origin_agreement": 0.8,
            "origin_kl": 0.2,
            "speedup": 2.0,
            "speedup_batch32": "unstable",
        }

    def test_of_the_origin(self):
        assert self.FIGURES.flat_origin() == {"accuracy": 0.6, "num_bytes": 18}

    def test_a_speedup_is_the_ratio_of_times_turned_round(self):
        assert self.FIGURES.ratios() == {
            "latency_p50": 0.5,
            "latency_p50_batch32": "unstable",
        }

    def test_every_recorded_name_can_be_used_in_a_gate(self, chain):
        from reuselib.measure.gates import names

        found = read_figures(chain.tuned.folder).flat()
        known = names(chain.execution.plan.task)

        assert not [name for name in found if name not in known and not name.startswith("step_")]
        assert {"accuracy", "flops", "agreement", "ece", "origin_kl", "speedup"} <= found.keys()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "no mapping"),
        ('{"strange":1}', "no mapping of known figures"),
        ('{"after":[]}', "'after' is a list"),
        ('{"test":null}', "'test' is a NoneType"),
        ('{"after":{"accuracy":"high"}}', "more than numbers"),
        ('{"after":{"accuracy":true}}', "more than numbers"),
    ],
)
def test_what_a_stranger_wrote_is_refused(tmp_path, content, why):
    (tmp_path / "lineage").mkdir()
    (tmp_path / "lineage/metrics.json").write_text(content)

    with pytest.raises(IntegrityError, match=why):
        read_figures(tmp_path)
