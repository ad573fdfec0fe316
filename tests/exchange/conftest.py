"""One chain of three children for the whole room: nobody changes it."""

from __future__ import annotations

import pytest

from chains import Chain, text_chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return text_chain(tmp_path_factory.mktemp("chain"))
