"""What the adapters' tests share: a session over a tiny model, so that an adapter can be tried alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reuselib.data import Splits
from reuselib.derivation.session import Encoded, Session
from reuselib.lineage.store import Store
from reuselib.model.opening import open_network
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_rows

Started = tuple["torch.nn.Module", Session]  # noqa: F821


@pytest.fixture(scope="session")
def rows() -> Splits:
    return Splits.of(tiny_rows(64), tiny_rows(32, seed=1))


@pytest.fixture(scope="session")
def bare_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks and no head."""
    return tiny_bert(tmp_path_factory.mktemp("bare"), num_layers=3)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks and a classifier."""
    return tiny_bert(tmp_path_factory.mktemp("bert"), head=True, num_layers=3)


@pytest.fixture
def start(rows: Splits, tmp_path: Path) -> Callable[[Path], Started]:
    """Opens a folder and a session over it."""

    def opened(folder: Path) -> Started:
        import torch

        task, store = TextClassification().pin(rows), Store(tmp_path / "store")
        torch.manual_seed(0)
        network = open_network(folder, task, store)
        session = Session(
            task=task,
            rows=rows,
            encoded=Encoded(task, network.processor),
            seed=0,
            store=store,
            fresh=network.fresh,
        )
        return network.module, session

    return opened
