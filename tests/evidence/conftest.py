"""A chain of three children and an honest child of every adapter, for the whole room: nobody changes them."""

from __future__ import annotations

import pytest

from chains import Chain, text_chain
from reuselib.testing.honest import Honest


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return text_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return Honest(tmp_path_factory.mktemp("honest"))
