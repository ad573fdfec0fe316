"""One base for the whole room: nobody changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from forensics import zoo


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo.base(tmp_path_factory.mktemp("zoo") / "base")
