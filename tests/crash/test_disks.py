from __future__ import annotations

from crash.disks import KEPT, LOST, Disk
from crash.writes import Operation, Watch

WRITE = [Operation("create", "a"), Operation("write", "a", data=b"new")]


def played(*operations, before=None):
    disk = Disk(before or {})
    for each in operations:
        disk.play(each)
    return disk


def test_what_was_not_synced_may_be_lost():
    disk = played(*WRITE)

    assert disk.tree(KEPT, KEPT) == {"a": b"new"}
    assert disk.tree(KEPT, LOST) == {"a": b""}
    assert disk.tree(KEPT, "zeros") == {"a": bytes(3)}
    assert disk.tree(LOST, KEPT) == {}


def test_content_is_kept_once_the_file_was_synced_and_its_name_once_the_folder_was():
    disk = played(*WRITE, Operation("fsync", "a"))
    assert disk.tree(KEPT, LOST) == {"a": b"new"}
    assert disk.tree(LOST, LOST) == {}

    disk.play(Operation("fsync", "."))
    assert disk.tree(LOST, LOST) == {"a": b"new"}


def test_rename_over_a_file_leaves_the_old_or_the_new_one():
    disk = played(
        *WRITE, Operation("fsync", "a"), Operation("rename", "a", "b"), before={"b": b"old"}
    )

    assert disk.tree(KEPT, LOST) == {"b": b"new"}
    assert disk.tree(LOST, LOST) == {"b": b"old"}


def test_rename_of_a_folder_that_was_not_synced_takes_names_without_content_along():
    disk = played(
        Operation("mkdir", "x"),
        Operation("create", "x/a"),
        Operation("write", "x/a", data=b"new"),
        Operation("rename", "x", "y"),
        Operation("fsync", "."),
    )

    assert disk.tree(LOST, LOST) == {"y": None}
    assert disk.tree(KEPT, LOST) == {"y": None, "y/a": b""}


def test_what_was_moved_is_gone_from_a_folder_that_was_synced_and_may_be_nowhere():
    before = {"x": None, "x/a": b"1", "y": None}
    disk = played(Operation("rename", "x/a", "y/a"), before=before)
    assert disk.tree(LOST, KEPT) == before

    disk.play(Operation("fsync", "x"))
    assert disk.tree(LOST, KEPT) == {"x": None, "y": None}

    disk.play(Operation("fsync", "y"))
    assert disk.tree(LOST, KEPT) == {"x": None, "y": None, "y/a": b"1"}


def test_folders_change_places_both_or_neither():
    before = {"x": None, "x/a": b"1", "y": None, "y/b": b"2"}
    disk = played(Operation("exchange", "x", "y"), before=before)

    assert disk.tree(LOST, LOST) == before
    assert disk.tree(KEPT, KEPT) == {"x": None, "x/b": b"2", "y": None, "y/a": b"1"}


def test_watch_knows_paths_below_its_folder_only(tmp_path):
    watch = Watch(tmp_path)

    assert watch.below(tmp_path / "a/../b") == "b"
    assert watch.below(tmp_path.parent / "b") is None
