"""Honest children of every adapter are proven, and children that claim something false are not."""

from __future__ import annotations

import pytest

from reuselib import catalog
from reuselib.evidence.prove import prove_step
from reuselib.lineage.verify import verify
from reuselib.testing.forgeries import FORGERIES
from reuselib.testing.honest import CHAINS


def test_every_adapter_has_an_honest_child_and_forgeries_of_it():
    assert {steps[-1].kind for steps in CHAINS.values()} == set(catalog.ADAPTERS)
    assert {forgery.child for forgery in FORGERIES} == set(CHAINS)


# one worker makes each child once
@pytest.mark.xdist_group("forgeries")
@pytest.mark.parametrize("name", CHAINS)
def test_an_honest_child_is_proven(honest, name):
    step = prove_step(honest.child(name), store=honest.store)

    assert step.tier == "proven", step


@pytest.mark.xdist_group("forgeries")
@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda each: f"{each.child}: {each.what}")
def test_a_forged_child_is_found_out(honest, tmp_path, forgery):
    step = forgery.try_on(honest, tmp_path / "forged")

    assert verify(tmp_path / "forged").ok, "a forger's record is consistent"
    assert step.tier == "broken", step
