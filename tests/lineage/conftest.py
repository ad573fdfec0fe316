"""A base, and a child of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lineage.folders import draft_of, write_child
from reuselib.lineage.inventory import take_inventory
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.record import Draft


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    weights = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3)}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"size": 3}')
    return folder


@pytest.fixture
def pinned(base: Path) -> Manifest:
    return Manifest.pin("base", take_inventory(base).digests, source="./base")


@pytest.fixture
def draft(pinned: Manifest) -> Draft:
    return draft_of(pinned)


@pytest.fixture
def child(tmp_path: Path, draft: Draft, pinned: Manifest) -> Path:
    write_child(tmp_path / "child", draft, {pinned.sha256: pinned.payload()})
    return tmp_path / "child"
