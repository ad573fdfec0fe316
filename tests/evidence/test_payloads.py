"""Pickles with teeth in a model folder: whatever is asked about it, none of them runs."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from reuselib import Model
from reuselib.errors import ReuseError
from reuselib.evidence.audit import audit
from reuselib.evidence.loading import load
from reuselib.evidence.prove import prove
from reuselib.forensics.diff import diff
from reuselib.forensics.trace import trace
from reuselib.lineage.verify import verify
from reuselib.scanning.scan import scan
from reuselib.testing.forging import restate
from scanning.payloads import SUFFIXES, WRAPPERS, pickles


@pytest.fixture
def markers(tmp_path):
    folder = tmp_path / "markers"
    folder.mkdir()
    return folder


@pytest.fixture
def child(chain, tmp_path):
    return shutil.copytree(chain.tuned.folder, tmp_path / "child")


def ask(chain, child) -> None:
    """Everything that can be asked of a folder."""
    assert not verify(child).ok
    assert not scan(child).ok
    found = audit(child, data=chain.rows, store=chain.store)
    assert not found.ok
    assert all(claim.holds is None for claim in found.claims)
    for question in (
        lambda: diff(child, chain.tuned.folder),
        lambda: diff(chain.tuned.folder, child),
        lambda: trace(child),
        lambda: prove(child, store=chain.store),
    ):
        with contextlib.suppress(ReuseError):
            question()
    with pytest.raises(ReuseError):
        load(child, store=chain.store)


def test_none_of_them_runs(chain, child, markers):
    for number, (name, data) in enumerate(pickles(markers / "x").items()):
        (child / f"{name}{SUFFIXES[number % len(SUFFIXES)]}").write_bytes(data)
    for name, wrap in WRAPPERS.items():
        (child / f"{name}.bin").write_bytes(wrap(pickles(markers / "y")["protocol-4"]))

    ask(chain, child)

    assert not list(markers.iterdir())
    hit = {
        hazard.path.partition("!")[0]
        for hazard in scan(child).hazards
        if hazard.code == "PICKLE_CODE"
    }
    assert len(hit) == len(pickles(markers)) + len(WRAPPERS)


def test_not_even_if_the_record_says_that_they_belong_there(chain, child, markers):
    (child / "pytorch_model.bin").write_bytes(WRAPPERS["zip"](pickles(markers / "x")["protocol-4"]))
    (child / "training_args.bin").write_bytes(pickles(markers / "y")["protocol-0"])
    restate(child)

    ask(chain, child)

    assert not list(markers.iterdir())


def test_not_even_in_place_of_the_weights(chain, child, markers):
    data = pickles(markers / "x")["protocol-2"]
    (child / "model.safetensors").unlink()
    (child / "pytorch_model.bin").write_bytes(WRAPPERS["zip"](data))
    (child / "model.safetensors.index.json").write_text('{"weight_map":{"a":"pytorch_model.bin"}}')

    ask(chain, child)
    with pytest.raises(ReuseError):
        Model.load(child, store=chain.store)

    assert not list(markers.iterdir())


def test_not_even_as_the_weights(chain, child, markers):
    (child / "model.safetensors").write_bytes(pickles(markers / "x")["protocol-4"])

    ask(chain, child)

    assert not list(markers.iterdir())
