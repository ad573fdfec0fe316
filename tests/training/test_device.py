from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.training.device import placed, target_device


def test_the_environment_can_insist_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    assert target_device() == torch.device("cpu")


def test_a_module_comes_back_to_where_it_was() -> None:
    module = nn.Linear(2, 2)

    # The meta device stands for another one: what is moved there and back loses its values, but not its place.
    with placed(module, torch.device("cpu")):
        assert module.weight.device.type == "cpu"
    module.to("meta")
    with pytest.raises(NotImplementedError), placed(module, torch.device("cpu")):
        pass
    assert module.weight.device.type == "meta"
