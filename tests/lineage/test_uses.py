from __future__ import annotations

import os
import threading
import time

import pytest

from reuselib.lineage.uses import Uses


@pytest.fixture
def uses(tmp_path):
    return Uses(tmp_path / "uses")


def test_the_last_use_is_that_of_the_note_else_of_the_folder(uses, tmp_path):
    place = tmp_path / "child"
    place.mkdir()
    os.utime(place, (1000, 1000))
    assert uses.last("a", place) == 1000
    assert uses.last("a", tmp_path / "gone") == 0

    assert uses.note("a", place)
    assert abs(uses.last("a", place) - time.time()) < 60
    uses.forget("a")
    uses.forget("a")

    assert uses.last("a", place) == 1000


def test_what_is_gone_cannot_be_used(uses, tmp_path):
    assert not uses.note("a", tmp_path / "gone")
    assert uses.last("a", tmp_path / "gone") == 0


def test_nobody_begins_to_use_what_is_being_taken_away(uses, tmp_path):
    place, noted = tmp_path / "child", []
    place.mkdir()
    with uses.moving():
        thread = threading.Thread(target=lambda: noted.append(uses.note("a", place)))
        thread.start()
        thread.join(0.1)
        assert noted == []
        place.rename(tmp_path / "away")
    thread.join(20)

    assert noted == [False]


def test_a_store_that_cannot_be_written_is_used_without_a_note(tmp_path):
    (tmp_path / "file").write_text("")

    assert Uses(tmp_path / "file/uses").note("a", tmp_path)
