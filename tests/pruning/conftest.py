"""Sessions over tiny convolutional networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reuselib.data import Splits
from reuselib.derivation.session import Encoded, Session
from reuselib.lineage.store import Store
from reuselib.model.opening import open_network
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.module import ModuleTask
from reuselib.testing.tiny import (
    tiny_cnn,
    tiny_convnext,
    tiny_images,
    tiny_mobilenet,
    tiny_resnet,
    tiny_vit,
)

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "resnet": tiny_resnet,
    "convnext": tiny_convnext,
    "mobilenet": tiny_mobilenet,
    "vit": tiny_vit,
}


def plain_task() -> ModuleTask:
    import torch

    return ModuleTask(network=tiny_cnn, criterion=torch.nn.functional.cross_entropy)


def plain_rows(num_rows: int = 16) -> Splits:
    import torch

    torch.manual_seed(0)
    rows = [{"x": torch.randn(1, 8, 8).numpy(), "y": number % 2} for number in range(num_rows)]
    return Splits.of(rows, rows[:8])


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], tuple[Any, Session]]:
    """Opens one of the networks, with running statistics that are not those of a new one, and a session over it."""
    import torch

    def opened(name: str) -> tuple[Any, Session]:
        store = Store(tmp_path / "store")
        if name == "cnn":
            torch.manual_seed(0)
            task, rows, module, processor = plain_task(), plain_rows(), tiny_cnn().eval(), None
        else:
            images = tiny_images(16, size=16)
            rows = Splits.of(images, images[:8])
            task = ImageClassification(size=None if name == "vit" else 32).pin(rows)
            network = open_network(BUILDERS[name](tmp_path / name), task, store)
            module, processor = network.module, network.processor
        _stir(module)
        session = Session(
            task=task, rows=rows, encoded=Encoded(task, processor), seed=0, store=store
        )
        return module, session

    return opened


def _stir(module: Any) -> None:
    """New norms are all ones and zeros, which would hide a mistake."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for each in module.modules():
            if "Norm" in type(each).__name__ and getattr(each, "weight", None) is not None:
                each.weight.uniform_(0.5, 1.5)
                each.bias.uniform_(-0.5, 0.5)
                if getattr(each, "running_mean", None) is not None:
                    each.running_mean.uniform_(-0.5, 0.5)
                    each.running_var.uniform_(0.5, 1.5)
