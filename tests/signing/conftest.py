"""A child that is signed, and who signed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineage.conftest import base, child, draft, pinned  # noqa: F401
from reuselib.signing.keys import make_keys
from reuselib.signing.sign import sign


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key; the public one is beside it."""
    make_keys(tmp_path / "keys/me")
    return tmp_path / "keys/me"


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_name("me.pub")


@pytest.fixture
def signed(child: Path, key: Path) -> Path:  # noqa: F811
    (child / "README.md").write_text("a card")
    sign(child, key)
    return child
