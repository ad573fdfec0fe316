from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from reuselib.task import Loaded, Task


@dataclass(frozen=True, kw_only=True)
class Parity(Task):
    """The least that a task has to say."""

    kind: ClassVar[str] = "parity"
    metric: ClassVar[str] = "accuracy"
    column: str = "x"
    names: tuple[str, ...] = ("even", "odd")

    def load(self, folder, *, trust_remote_code=False): ...
    def skeleton(self, folder): ...
    def save(self, module, processor, folder): ...
    def head(self, module): ...
    def encode(self, rows, processor): ...
    def collate(self, examples, processor): ...
    def inputs(self, batch):
        return {"x": batch["x"]}

    def num_targets(self, batch): ...
    def loss(self, logits, batch): ...
    def observe(self, logits, batch): ...
    def metrics(self, observed): ...


def test_a_task_describes_itself_as_recipes_do():
    assert Parity(column="y").describe() == {"parity": {"column": "y", "names": ["even", "odd"]}}


def test_what_a_task_need_not_say(tmp_path):
    task = Parity()

    assert task.pin(None) is task  # type: ignore[arg-type]
    assert task.reference(None) is None  # type: ignore[arg-type]
    assert task.processor(tmp_path) is None
    assert task.length({"x": [1, 2, 3]}) == 1
    assert task.greater_is_better


def test_a_network_gets_the_inputs_by_name_and_nothing_else():
    given = {}

    def network(**inputs):
        given.update(inputs)
        return SimpleNamespace(logits="outputs")

    outputs = Parity().forward(network, {"x": 1, "labels": 2})  # type: ignore[arg-type, dict-item]

    assert outputs == "outputs"
    assert given == {"x": 1}


def test_answers_are_plain_values_one_a_row():
    assert Parity().answers(torch.tensor([[1.0, 2.0], [3.0, 4.0]])) == [[1.0, 2.0], [3.0, 4.0]]


def test_a_network_is_complete_unless_a_task_says_otherwise():
    loaded = Loaded(module=None, processor=None)  # type: ignore[arg-type]

    assert (loaded.fresh, loaded.prefix) == (frozenset(), "")


@pytest.mark.parametrize("name", sorted(Task.__abstractmethods__))
def test_a_task_must_say_everything_that_has_no_default(name):
    lacking = type("Lacking", (Parity,), {name: getattr(Task, name)})

    with pytest.raises(TypeError, match=name):
        lacking()


def test_what_a_task_need_not_measure():
    task = Parity()

    assert task.metric_names == ("accuracy", "loss")
    assert (task.sums({}), task.beliefs({}), task.row_losses({})) == (None, None, None)
    assert task.metrics_of(torch.zeros(3)) == {}
    assert not task.answers_positions
