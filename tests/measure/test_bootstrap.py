from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from reuselib.measure.bootstrap import (
    NUM_CALLS,
    NUM_RESAMPLES,
    _indices,
    changes,
    intervals,
    resampled,
)
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.module import ModuleTask
from reuselib.tasks.text_classification import TextClassification

LABELS = ("a", "b", "c")


def observed(num_rows: int = 40, num_labels: int = 3, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, num_labels, generator=draw)
    return {
        "logits": logits,
        "labels": torch.randint(num_labels, (num_rows,), generator=draw),
    }


def many_labels():
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 3, generator=draw)
    return {"logits": logits, "labels": (torch.rand(40, 3, generator=draw) > 0.5).float()}


def numbers():
    draw = torch.Generator().manual_seed(2)
    labels = 100 + torch.randn(40, generator=draw)
    return {"logits": labels[:, None] + torch.randn(40, 1, generator=draw), "labels": labels}


def tokens():
    draw = torch.Generator().manual_seed(3)
    counts = torch.randint(1, 9, (40,), generator=draw)
    return {"loss": torch.rand(40, generator=draw, dtype=torch.float64) * counts, "tokens": counts}


TASKS = [
    (TextClassification(labels=LABELS), observed()),
    (ImageClassification(labels=LABELS), observed()),
    (TextClassification(labels=LABELS, problem="multi_label"), many_labels()),
    (TextClassification(problem="regression"), numbers()),
    (CausalLM(), tokens()),
]


@pytest.mark.parametrize(("task", "seen"), TASKS, ids=lambda each: getattr(each, "kind", ""))
def test_sums_over_all_rows_give_the_metrics(task, seen):
    found = task.metrics_of(task.sums(seen).sum(dim=0))

    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        task.metrics(seen)
    )
    assert set(task.metric_names) == set(task.metrics(seen))


@pytest.mark.parametrize(("task", "seen"), TASKS, ids=lambda each: getattr(each, "kind", ""))
def test_a_resample_is_measured_as_if_its_rows_had_been_given(task, seen):
    found = resampled(task, seen)
    drawn = torch.cat(list(_indices(40, NUM_RESAMPLES)))

    for index in (0, 7, NUM_RESAMPLES - 1):
        plain = task.metrics({name: value[drawn[index]] for name, value in seen.items()})
        assert {name: each[index].item() for name, each in found.items()} == pytest.approx(plain)


def test_an_interval_is_that_of_numpy_and_holds_the_figure():
    """Percentiles of the mean of rows drawn with replacement."""
    seen = observed(200)
    hits = (seen["logits"].argmax(-1) == seen["labels"]).double().numpy()
    random = np.random.default_rng(0)
    means = random.choice(hits, (20_000, 200)).mean(axis=1)

    low, high = intervals(resampled(TextClassification(labels=LABELS), seen))["accuracy"]

    assert low < hits.mean() < high
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.011)


def test_the_same_rows_are_drawn_whoever_is_measured():
    """So that equal models have no difference, and a small steady one is not lost in the noise."""
    task, seen = TextClassification(labels=LABELS), observed(100)
    shifted = {**seen, "logits": seen["logits"] * 1.001}
    one, other = resampled(task, seen), resampled(task, shifted)

    assert changes(one, one) == {name: (0, 0) for name in task.metric_names}
    low, high = changes(one, other)["loss"]
    wide = intervals(one)["loss"]
    assert 0 < high - low < 0.01 * (wide[1] - wide[0])


def test_many_rows_are_drawn_in_several_parts(monkeypatch):
    from reuselib.measure import bootstrap

    whole = resampled(CausalLM(), tokens())
    monkeypatch.setattr(bootstrap, "_MAX_CELLS", 40 * 7)
    parted = resampled(CausalLM(), tokens())

    assert len(parted["loss"]) == NUM_RESAMPLES
    assert intervals(parted)["loss"] == pytest.approx(intervals(whole)["loss"], abs=0.02)


def mean_error(outputs, targets):
    return (outputs - targets).abs().mean()


def score(outputs, targets):
    return 1 - (outputs - targets).abs().median()


def broken(outputs, targets):
    raise ZeroDivisionError


class TestCalled:
    """A metric from Python is no function of sums: it is called on each resample."""

    def task(self, score):
        return ModuleTask(network=torch.nn.Identity, criterion=mean_error, score=score)

    def seen(self):
        values = torch.arange(20.0)
        return {"outputs": values, "targets": values + torch.linspace(0, 1, 20)}

    def test_it_has_an_interval_too(self):
        found = resampled(self.task(score), self.seen())

        assert {name: len(each) for name, each in found.items()} == {
            "score": NUM_CALLS,
            "loss": NUM_CALLS,
        }
        low, high = intervals(found)["score"]
        assert low < 0.5 < high

    def test_one_that_is_not_defined_on_every_draw_has_none(self):
        assert resampled(self.task(broken), self.seen()) == {}


@dataclass(frozen=True)
class Infinite(CausalLM):
    kind: ClassVar[str] = "infinite"

    def metrics_of(self, sums):
        return {"perplexity": torch.full((len(sums),), float("inf")), "loss": sums[:, 0]}


def test_what_is_not_finite_has_no_interval():
    assert set(intervals(resampled(Infinite(), tokens()))) == {"loss"}


def test_with_very_many_classes_only_f1_has_no_interval():
    seen = observed(20, 300)

    found = resampled(TextClassification(labels=tuple(map(str, range(300)))), seen)

    assert len(found["accuracy"]) == NUM_RESAMPLES
    assert len(found["f1"]) == NUM_CALLS
