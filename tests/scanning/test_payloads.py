"""Pickles with teeth: every one is found, whatever it is called and wrapped in, and none ever runs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from reuselib.scanning.scan import scan
from scanning.payloads import SUFFIXES, WRAPPERS, pickles

NAMES = tuple(pickles(Path("marker")))


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """What is found here is found without picklescan."""
    monkeypatch.setattr("reuselib.scanning.scan.at_hand", lambda: False)


def found(folder: Path) -> set[str]:
    return {hazard.code for hazard in scan(folder).hazards}


def test_there_are_many():
    assert len(NAMES) >= 44


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found_and_none_runs(tmp_path, name):
    marker = tmp_path / "marker"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.dat").write_bytes(pickles(marker)[name])

    assert "PICKLE_CODE" in found(folder)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["protocol-0", "protocol-4", "text", "stack-global-memo"])
def test_whatever_it_is_called(tmp_path, suffix, name):
    marker = tmp_path / "marker"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / f"file{suffix}").write_bytes(pickles(marker)[name])

    assert "PICKLE_CODE" in found(folder)
    assert not marker.exists()


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["protocol-0", "protocol-4", "inst", "cut-short"])
def test_whatever_it_is_wrapped_in(tmp_path, wrapper, name):
    marker = tmp_path / "marker"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(WRAPPERS[wrapper](pickles(marker)[name]))

    assert "PICKLE_CODE" in found(folder)
    assert not marker.exists()


def test_each_would_have_run(tmp_path):
    """In a process of its own, so that the tests above are known to look for something real."""
    code = (
        "import os, pickle, sys\n"
        "for name in sorted(os.listdir(sys.argv[1])):\n"
        "    file = open(os.path.join(sys.argv[1], name), 'rb')\n"
        "    for _ in range(4):\n"
        "        try: pickle.load(file)\n"
        "        except BaseException: break\n"
    )
    (tmp_path / "payloads").mkdir()
    (tmp_path / "markers").mkdir()
    for number, name in enumerate(NAMES):
        marker = tmp_path / "markers" / str(number)
        (tmp_path / "payloads" / str(number)).write_bytes(pickles(marker)[name])

    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "payloads"],
        check=True,
        timeout=60,
        capture_output=True,
    )

    ran = {int(path.name) for path in (tmp_path / "markers").iterdir()}
    assert [name for number, name in enumerate(NAMES) if number not in ran] == []


def test_what_only_holds_weights_is_told_apart(tmp_path):
    from collections import OrderedDict

    (tmp_path / "a.bin").write_bytes(pickle.dumps(OrderedDict(a=[1.0, 2.0])))

    assert found(tmp_path) == {"PICKLE"}


def test_a_checkpoint_of_torch_is_told_apart(tmp_path):
    import torch

    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    torch.save({"a": torch.ones(3)}, new / "x.bin")
    torch.save({"a": torch.ones(3)}, old / "x.bin", _use_new_zipfile_serialization=False)

    # the bare numbers in the archive are of no known format
    assert found(new) == {"PICKLE", "ARCHIVE", "UNKNOWN_FORMAT"}
    assert found(old) == {"PICKLE"}
