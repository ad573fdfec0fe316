"""One chain of three children for the whole room, and what several processes made: nobody changes them."""

from __future__ import annotations

import pytest
from crews import Crews, write_inputs

import ranks
from chains import Chain, text_chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return text_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="session")
def crews(tmp_path_factory: pytest.TempPathFactory) -> Crews:
    inputs = ranks.made_once(tmp_path_factory, "inputs", write_inputs)
    crews = Crews(inputs, lambda: ranks.made_once(tmp_path_factory, "crews", crews.work))
    return crews
