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
    assert not outputs.describes_others(config("cat", "dog"), None)


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


class TestBeliefs:
    def test_one_label_is_one_decision_between_all(self):
        logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 1.0, 1.0]])

        found = outputs.beliefs(logits, torch.tensor([2, 1]), ("a", "b", "c"), "single_label")

        assert torch.allclose(found.log_probabilities[:, 0].exp(), logits.softmax(-1).double())
        assert found.truth.tolist() == [[2], [1]]
        assert found.names == ("a", "b", "c")

    def test_several_labels_are_decisions_between_no_and_yes(self):
        logits = torch.tensor([[0.0, 3.0]])

        found = outputs.beliefs(logits, torch.tensor([[1.0, 0.0]]), ("a", "b"), "multi_label")

        yes = found.log_probabilities[0, :, 1].exp()
        assert torch.allclose(yes, logits[0].sigmoid().double())
        assert torch.allclose(found.log_probabilities.exp().sum(-1), torch.ones(1, 2).double())
        assert found.truth.tolist() == [[1, 0]]

    def test_a_number_has_none(self):
        assert outputs.beliefs(torch.ones(2, 1), torch.ones(2), (), "regression") is None
