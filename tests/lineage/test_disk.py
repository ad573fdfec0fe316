from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest

from reuselib.errors import StoreError
from reuselib.lineage import disk as module
from reuselib.lineage.disk import (
    blames_disk,
    exchange,
    explain,
    make_folder,
    sync_tree,
    write_file,
    writing,
)


def test_file_is_replaced_whole(tmp_path):
    write_file(tmp_path / "x", b"old")
    os.link(tmp_path / "x", tmp_path / "former")

    write_file(tmp_path / "x", b"new")

    assert (tmp_path / "x").read_bytes() == b"new"
    # The old content was not touched on the way: who was reading it may go on.
    assert (tmp_path / "former").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["former", "x"]


def test_failure_leaves_the_old_content_and_no_part(tmp_path):
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from reuselib.lineage.disk import write_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_file(Path(sys.argv[1]), bytes(5000))\n"
    )
    (tmp_path / "x").write_bytes(b"old")

    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "StoreError: cannot write" in ended.stderr
    assert "bytes free" in ended.stderr
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "make it writable"),
        (errno.EIO, "look after the disk"),
        (errno.EACCES, "make it writable"),
        (errno.ENOTDIR, "choose another place"),
    ],
)
def test_reason_decides_what_to_do(tmp_path, number, words):
    error = explain(OSError(number, "why"), tmp_path / "nowhere/deep")

    assert words in error.fix
    assert "bytes free" in error.what
    assert os.strerror(number) in error.what


def test_os_errors_become_store_errors(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError), writing(tmp_path):
        (tmp_path / "file/x").write_text("")


def test_full_disk_is_recognised_behind_compiled_code():
    hidden = RuntimeError("I/O error: No space left on device (os error 28)")

    assert blames_disk(hidden)
    assert blames_disk(OSError(errno.ENOSPC, "x"))
    assert blames_disk(OSError([("a", "b", "[Errno 28] No space left on device: 'b'")]))
    assert blames_disk(RuntimeError("I/O error: Input/output error (os error 5)"))
    assert not blames_disk(FileNotFoundError(errno.ENOENT, "x"))
    assert not blames_disk(RuntimeError("other"))


def test_sync_reaches_every_file(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_text("x")

    sync_tree(tmp_path)


def test_new_folders_are_on_the_disk_with_all_above_them(tmp_path, monkeypatch):
    synced: list[str] = []
    monkeypatch.setattr(module, "sync", lambda path: synced.append(path.name))
    (tmp_path / "a").mkdir()

    make_folder(tmp_path / "a/b/c")
    make_folder(tmp_path / "a/b/c")

    assert (tmp_path / "a/b/c").is_dir()
    assert synced == ["a", "b"]


def test_folder_below_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").write_text("")

    for path in (tmp_path / "x", tmp_path / "x/y"):
        with pytest.raises(OSError, match="Not a directory"):
            make_folder(path)


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is of Linux")
def test_folders_change_places(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "one/x").write_text("x")

    if not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system does not do that")

    assert (tmp_path / "other/x").exists()
    assert not (tmp_path / "one/x").exists()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "nowhere")
