from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reuselib.errors import IntegrityError, ReuseError, SourceError, StoreError
from reuselib.lineage import checkpoints
from reuselib.lineage.checkpoints import Checkpoints, Title, differences, glance, read

TITLE = Title(
    training=0,
    step=12,
    num_steps=40,
    inputs={"adapter": {"lora": {"r": 4}}},
    environment={"device": "cpu"},
    notes={"seconds": 1.5},
)


@pytest.fixture
def place(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "store", "ab" * 32)


def put(place: Checkpoints, step: int = 12, training: int = 0, ended: bool = False) -> Path:
    title = replace(TITLE, step=step, training=training, ended=ended)
    with place.add(title) as folder:
        (folder / "tensors.safetensors").write_bytes(bytes(range(256)) * 3)
        (folder / "state.json").write_bytes(b'{"state":1}')
    return place.folder / title.name


def test_what_is_written_is_read(place):
    folder = put(place)

    title, files = read(folder)

    assert title == TITLE
    assert set(files) == {"checkpoint.json", "state.json", "tensors.safetensors"}
    assert glance(folder) == TITLE
    assert list((place.store / "tmp").iterdir()) == []


def test_they_are_ordered_by_step_whatever_the_clock_says(place):
    for step in (100, 20, 3):
        folder = put(place, step)
        os.utime(folder, (2e9 - step, 2e9 - step))
    put(place, 5, training=1)
    put(place, 200, ended=True)
    (place.folder / "something").mkdir()

    assert place.names() == ["1-5", "0-end", "0-100", "0-20", "0-3"]
    assert place.names(0) == ["0-end", "0-100", "0-20", "0-3"]
    assert Checkpoints(place.store, "cd" * 32).names() == []


@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "checkpoint.json", "state.json", "tensors.safetensors"]
)
def test_one_that_is_cut_off_anywhere_or_has_a_changed_byte_is_none(place, name):
    folder = put(place)
    whole = (folder / name).read_bytes()
    for at in range(len(whole)):
        (folder / name).write_bytes(whole[:at])
        with pytest.raises(IntegrityError):
            read(folder)
        changed = bytearray(whole)
        changed[at] ^= 1
        (folder / name).write_bytes(changed)
        with pytest.raises(ReuseError):
            read(folder)
    (folder / name).unlink()
    with pytest.raises((IntegrityError, SourceError)):
        read(folder)
    (folder / name).write_bytes(whole)
    assert read(folder)[0] == TITLE


def test_one_with_a_file_too_many_is_none(place):
    folder = put(place)
    (folder / "more").write_bytes(b"")

    with pytest.raises(IntegrityError, match="DIGEST_MISMATCH"):
        read(folder)


def test_a_block_that_raises_leaves_what_was_there(place):
    folder = put(place)

    def interrupted():
        with place.add(TITLE) as new:
            (new / "state.json").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert read(folder)[0] == TITLE
    assert list((place.store / "tmp").iterdir()) == []


def test_one_that_does_not_read_back_is_removed(place, monkeypatch):
    def broken(folder):
        raise IntegrityError("DIGEST_MISMATCH", "the disk lies")

    monkeypatch.setattr(checkpoints, "read", broken)

    with pytest.raises(IntegrityError):
        put(place)

    assert place.names() == []


def test_the_same_step_is_replaced(place):
    put(place)
    (put(place) / "state.json").read_bytes()

    assert place.names() == ["0-12"]


def test_a_store_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "store").write_text("")

    with pytest.raises(StoreError, match="cannot write"):
        put(Checkpoints(tmp_path / "store", "ab" * 32))


def test_only_some_are_kept_and_all_go_in_the_end(place):
    for step in (1, 2, 3):
        put(place, step)

    place.keep_only(["0-3"])
    assert place.names() == ["0-3"]
    place.clear()
    assert not place.folder.exists()
    place.clear()


def test_a_copy_elsewhere_is_as_good(place, tmp_path):
    shutil.copytree(put(place), tmp_path / "copy")

    assert read(tmp_path / "copy")[0] == TITLE


def test_what_is_no_checkpoint_is_said(tmp_path):
    with pytest.raises(SourceError, match="no checkpoint at"):
        read(tmp_path)
    assert glance(tmp_path) is None


def test_differences_name_each_field():
    there = {"lora": {"r": 4, "fit": {"learning_rate": 5e-5}}, "seed": 0, "gone": 1}
    here = {"lora": {"r": 4, "fit": {"learning_rate": 1e-4}}, "seed": 0, "new": []}

    assert differences(there, here) == [
        "gone: 1 there, nothing here",
        "lora.fit.learning_rate: 5e-05 there, 0.0001 here",
        "new: nothing there, [] here",
    ]
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) == []
