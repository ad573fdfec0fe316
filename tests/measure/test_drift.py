"""Against what a few lines of numpy say, and against torchmetrics' formula of the calibration error written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reuselib.measure.drift import MIN_ROWS, calibration_error, drift, kl, standing
from reuselib.measure.probe import Measured
from reuselib.task import Beliefs
from reuselib.tasks.outputs import beliefs

NAMES = ("a", "b", "c")


def said(logits, truth=None, names=NAMES) -> Measured:
    logits = torch.as_tensor(logits, dtype=torch.float64)
    truth = torch.as_tensor(truth if truth is not None else [0] * len(logits))
    losses = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
    return Measured(beliefs=beliefs(logits, truth, names, "single_label"), losses=losses)


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 60)
    one = random.normal(size=(60, 3))
    return one, one + 0.7 * random.normal(size=(60, 3)), truth


class TestAnswers:
    def test_agreement_and_divergence(self, pair):
        one, other, truth = pair
        p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (one, other))

        found = drift(said(one, truth), said(other, truth), {})

        assert found["agreement"] == pytest.approx((one.argmax(1) == other.argmax(1)).mean())
        assert found["kl"] == pytest.approx((p * np.log(p / q)).sum(1).mean())

    def test_a_model_does_not_drift_from_itself(self, pair):
        found = drift(said(pair[0], pair[2]), said(pair[0], pair[2]), {"all": list(range(60))})

        assert (found["agreement"], found["kl"], found["rows"]) == (1, 0, [])
        assert (found["worst_class_change"], found["worst_slice_change"]) == (0, 0)

    def test_the_most_changed_rows_come_first_with_both_answers(self):
        one = [[9.0, 0, 0], [0.1, 0, 0], [0, 5.0, 0]]
        other = [[9.0, 0, 0], [0.1, 0.2, 0], [0, 0, 5.0]]

        rows = drift(said(one), said(other), {})["rows"]

        assert [(each["row"], each["before"], each["after"]) for each in rows] == [
            (2, "b", "c"),
            (1, "a", "b"),
        ]
        assert rows[0]["kl"] > rows[1]["kl"] > 0

    def test_what_is_impossible_for_the_first_counts_nothing(self):
        one = Beliefs(torch.tensor([[[0.0, -torch.inf]]]))
        other = Beliefs(torch.tensor([[[0.5, 0.5]]]).log())

        assert kl(one, other).item() == pytest.approx(np.log(2))

    def test_an_infinite_divergence_is_not_recorded(self):
        impossible = said([[0.0, -torch.inf, 0.0]] * 2)

        found = drift(said([[0.0, 0.0, 0.0]] * 2), impossible, {})

        assert "kl" not in found
        assert found["rows"] == []


class TestParts:
    def test_classes_are_told_before_and_after(self):
        truth = [0] * 5 + [1] * 6 + [2] * 2
        right = torch.nn.functional.one_hot(torch.tensor(truth), 3).double()
        wrong = right.clone()
        wrong[:3] = torch.tensor([0.0, 1.0, 0.0])
        wrong[-1] = torch.tensor([1.0, 0.0, 0.0])

        found = drift(said(right, truth), said(wrong, truth), {"first": [0, 1, 2, 3, 12]})

        assert found["classes"] == [
            {"name": "a", "rows": 5, "before": 1.0, "after": pytest.approx(0.4)},
            {"name": "b", "rows": 6, "before": 1.0, "after": 1.0},
            {"name": "c", "rows": 2, "before": 1.0, "after": 0.5},
        ]
        assert found["worst_class_change"] == pytest.approx(-0.6)
        assert found["slices"] == [
            {"name": "first", "rows": 5, "before": 1.0, "after": pytest.approx(0.2)}
        ]
        assert found["worst_slice_change"] == pytest.approx(-0.8)
        told = standing(said(wrong, truth), {"first": [0, 1, 2, 3, 12]})
        assert (told["worst_class"], told["worst_slice"]) == pytest.approx((0.4, 0.2))

    def test_too_few_rows_are_never_called_the_worst(self):
        truth = [0] * MIN_ROWS + [1] * (MIN_ROWS - 1)
        answers = [[1.0, 0, 0]] * len(truth)

        assert standing(said(answers, truth), {"x": [5, 6]})["worst_class"] == 1
        assert "worst_slice" not in standing(said(answers, truth), {"x": [5, 6]})

    def test_each_label_is_a_class_where_a_row_may_have_several(self):
        logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [1.0, -1.0]])
        truth = torch.tensor([[1.0, 0], [1, 1], [1, 0], [1, 0], [1, 0]])
        one = Measured(beliefs=beliefs(logits, truth, ("x", "y"), "multi_label"))
        other = Measured(beliefs=beliefs(-logits, truth, ("x", "y"), "multi_label"))

        found = drift(one, other, {})

        assert found["agreement"] == 0
        assert [(each["name"], each["before"]) for each in found["classes"]] == [
            ("x", pytest.approx(0.8)),
            ("y", 1.0),
        ]
        assert {
            k: v for k, v in next(r for r in found["rows"] if r["row"] == 1).items() if k != "kl"
        } == {"row": 1, "before": ["x", "y"], "after": []}

    def test_without_probabilities_losses_are_compared_and_more_is_worse(self):
        one = Measured(losses=torch.tensor([1.0, 2, 3, 4, 5, 6]).double())
        other = Measured(losses=torch.tensor([1.0, 2, 3, 4, 5, 9]).double())

        found = drift(one, other, {"all": list(range(6)), "calm": [0, 1, 2, 3, 4]})

        assert found["loss_change"] == pytest.approx(0.5)
        assert found["worst_slice_change"] == pytest.approx(0.5)
        assert found["rows"] == [{"row": 5, "before": 6.0, "after": 9.0}]
        assert "agreement" not in found
        assert standing(other, {"all": list(range(6))}) == {"worst_slice": pytest.approx(4.0)}

    def test_answers_of_other_labels_cannot_be_compared(self):
        found = drift(said([[1.0, 0, 0]]), said([[1.0, 0]], names=("a", "b")), {})

        assert "agreement" not in found


class TestCalibration:
    def reference(self, confidence, hits):
        """The formula of Guo et al., bin by bin."""
        total = 0.0
        for low in np.linspace(0, 1, 16)[:-1]:
            inside = (confidence > low) & (confidence <= low + 1 / 15)
            if inside.any():
                total += abs(hits[inside].mean() - confidence[inside].mean()) * inside.mean()
        return total

    def test_against_the_formula(self, pair):
        logits, _, truth = pair
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

        found = calibration_error(said(logits, truth).beliefs)

        assert found == pytest.approx(self.reference(p.max(1), p.argmax(1) == truth))

    def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not(self):
        sure = [[100.0, 0, 0]] * 4

        assert calibration_error(said(sure, [0] * 4).beliefs) == pytest.approx(0)
        assert calibration_error(said(sure, [1] * 4).beliefs) == pytest.approx(1)
