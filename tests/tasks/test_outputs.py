from __future__ import annotations

import pytest
import torch
from transformers import BertConfig

from reuselib.errors import SourceError
from reuselib.tasks import outputs


def config(*labels: str) -> BertConfig:
    return BertConfig(id2label=dict(enumerate(labels)))


def test_a_configuration_is_told_labels_and_problem():
    described = BertConfig()

    outputs.describe(described, ("a", "b", "c"), "single_label_classification")

    assert described.num_labels == 3
    assert described.id2label == {0: "a", 1: "b", 2: "c"}
    assert described.label2id == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    "theirs", [("LABEL_0", "LABEL_1"), ("a", "b"), ("A", "B"), ("x", "y", "z")]
)
def test_labels_that_are_ours_unnamed_or_of_another_number_keep_the_head(theirs):
    assert not outputs.describes_others(config(*theirs), ("a", "b"))


def test_other_labels_are_others():
    assert outputs.describes_others(config("cat", "dog"), ("a", "b"))


def test_another_order_is_an_error():
    with pytest.raises(SourceError, match="another order") as caught:
        outputs.describes_others(config("B", "A"), ("a", "b"))
    assert caught.value.fix == "set `labels: [b, a]` in the task"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("single_label", ["b", "a"]),
        ("multi_label", [("b",), ("a", "b")]),
        ("regression", [-1.0, 2.0, 3.0, 1.0]),
    ],
)
def test_logits_are_told_in_the_tasks_own_terms(problem, said):
    logits = torch.tensor([[-1.0, 2.0], [3.0, 1.0]])

    assert outputs.answers(logits, ("a", "b"), problem) == said
