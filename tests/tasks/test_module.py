from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from reuselib.data import Splits
from reuselib.errors import DataError, SourceError
from reuselib.tasks.module import ModuleTask
from reuselib.testing.tiny import tiny_cnn, tiny_images


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return (outputs.argmax(-1) == targets).float().mean().item()


TASK = ModuleTask(
    network=tiny_cnn, criterion=functional.cross_entropy, outputs=("8",), score=accuracy
)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(x))


def rows(num_rows: int = 8) -> list:
    return [
        {"x": row["image"][None].astype(np.float64) / 255, "y": int(row["label"] == "right")}
        for row in tiny_images(num_rows)
    ]


def test_rows_become_batches_of_fp32_and_int64():
    batch = TASK.collate(TASK.encode(rows(), None), None)

    assert batch["x"].shape == (8, 1, 8, 8)
    assert batch["x"].dtype == torch.float32
    assert batch["y"].tolist() == [0, 1] * 4
    assert TASK.inputs(batch).keys() == {"x"}


def test_the_loss_is_the_criterion_times_the_rows():
    batch = TASK.collate(TASK.encode(rows(), None), None)
    module = tiny_cnn().eval()
    outputs = TASK.forward(module, batch)

    expected = functional.cross_entropy(outputs, batch["y"], reduction="sum").item()

    assert TASK.loss(outputs, batch).item() == pytest.approx(expected, rel=1e-6)
    found = TASK.metrics(TASK.observe(outputs, batch))
    assert found["loss"] == pytest.approx(expected / 8, rel=1e-6)
    assert found["score"] == accuracy(outputs, batch["y"])


def test_without_a_score_the_loss_decides():
    task = ModuleTask(network=tiny_cnn, criterion=functional.cross_entropy)

    assert (task.metric, task.greater_is_better) == ("loss", False)
    assert (TASK.metric, TASK.greater_is_better) == ("score", True)


@pytest.mark.parametrize("network", [tiny_cnn, Tied])
def test_a_saved_network_comes_back_bit_for_bit_and_in_equal_bytes(tmp_path, network):
    task = ModuleTask(network=network, criterion=functional.mse_loss)
    module = network()

    task.save(module, None, tmp_path / "a")
    loaded = task.load(tmp_path / "a")
    task.save(loaded.module, None, tmp_path / "b")

    for name, value in module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], value)
    assert loaded.fresh == set()
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    if network is Tied:
        assert loaded.module.out.weight is loaded.module.embed.weight


def test_other_weights_are_an_error_that_lists_them(tmp_path):
    TASK.save(tiny_cnn(num_labels=3), None, tmp_path)

    with pytest.raises(SourceError, match=r"of another shape: 8\.bias, 8\.weight"):
        TASK.load(tmp_path)
    with pytest.raises(SourceError, match=r"missing: embed\.weight; left over: 0\.bias"):
        ModuleTask(network=Tied, criterion=functional.mse_loss).load(tmp_path)
    with pytest.raises(SourceError, match="holds no model"):
        TASK.load(tmp_path / "nowhere")


def test_rows_of_unequal_shape_are_an_error():
    uneven = [{"x": [1.0], "y": 0}, {"x": [1.0, 2.0], "y": 1}]

    with pytest.raises(DataError, match=r"'x': \(1,\), \(2,\)"):
        TASK.collate(TASK.encode(uneven, None), None)
    with pytest.raises(DataError, match="row 0 has 'a'"):
        TASK.encode([{"x": "a", "y": 0}], None)
    with pytest.raises(DataError, match="no column 'y'"):
        TASK.pin(Splits.of([{"x": 1.0}, {"x": 2.0}], [{"x": 1.0}]))


def test_a_skeleton_draws_nothing():
    before = torch.get_rng_state()

    TASK.skeleton(None)

    assert torch.equal(before, torch.get_rng_state())


def test_a_description_is_json_and_changes_with_the_code():
    described = TASK.describe()["module"]

    assert json.loads(json.dumps(described)) == described
    assert described["network"]["name"] == "reuselib.testing.tiny.tiny_cnn"
    assert described["outputs"] == ["8"]
    smooth = ModuleTask(
        network=partial(tiny_cnn, num_labels=2), criterion=nn.CrossEntropyLoss(label_smoothing=0.1)
    )
    plain = ModuleTask(network=partial(tiny_cnn, num_labels=3), criterion=nn.CrossEntropyLoss())
    for name in ("network", "criterion"):
        one, other = smooth.describe()["module"][name], plain.describe()["module"][name]
        assert one["name"] == other["name"]
        assert one["code"] != other["code"]


class TestMeasuring:
    """What drift is measured on, where outputs and targets look like it."""

    TASK = ModuleTask(network=nn.Identity, criterion=functional.cross_entropy)

    def observed(self, outputs, targets):
        return {"outputs": torch.as_tensor(outputs), "targets": torch.as_tensor(targets)}

    def test_whole_numbers_beside_several_outputs_are_classes(self):
        outputs = torch.tensor([[1.0, 2.0], [3.0, 0.0]])

        found = self.TASK.beliefs(self.observed(outputs, [1, 1]))

        assert torch.allclose(found.log_probabilities[:, 0].exp(), outputs.softmax(-1).double())
        assert (found.truth.tolist(), found.names) == ([[1], [1]], ("0", "1"))

    @pytest.mark.parametrize(
        ("outputs", "targets"),
        [([[1.0, 2.0]], [0.5]), ([1.0, 2.0], [0, 1]), ([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [-1])],
        ids=["fractions", "one output", "too large", "negative"],
    )
    def test_others_are_not(self, outputs, targets):
        assert self.TASK.beliefs(self.observed(outputs, targets)) is None

    def test_the_criterion_of_each_row(self, monkeypatch):
        from reuselib.tasks import module

        seen = self.observed(torch.randn(6, 3), [0, 1, 2, 0, 1, 2])

        assert self.TASK.row_losses(seen).mean().item() == pytest.approx(
            self.TASK.metrics(seen)["loss"]
        )
        monkeypatch.setattr(module, "_MAX_ROWS", 5)
        assert self.TASK.row_losses(seen) is None
