from __future__ import annotations

import shutil

import pytest

from reuselib.errors import StoreError
from reuselib.lineage import disk
from reuselib.lineage import output as module
from reuselib.lineage.output import check_output, deliver, recover
from reuselib.lineage.verify import verify


def test_new_or_empty_folder_may_be_used(tmp_path):
    check_output(tmp_path / "new")
    check_output(tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_of_someone_else_is_never_replaced(tmp_path, child, overwrite):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("x")

    with pytest.raises(StoreError, match="never replaced"):
        deliver(child, home, overwrite=overwrite)

    assert (home / "thesis.tex").exists()


def test_file_or_link_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    for name in ("file", "link"):
        with pytest.raises(StoreError, match="not a folder"):
            check_output(tmp_path / name, overwrite=True)


def test_model_is_copied_whole(tmp_path, child):
    folder = deliver(child, tmp_path / "deep/out")

    assert verify(folder).ok
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_model_is_replaced_only_if_told(tmp_path, child):
    out = deliver(child, tmp_path / "out")
    (out / "config.json").write_text("old")

    with pytest.raises(StoreError, match="--overwrite"):
        deliver(child, out)
    assert (out / "config.json").read_text() == "old"

    deliver(child, out, overwrite=True)
    assert verify(out).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "child", "out"]


def test_old_model_stays_if_the_new_one_cannot_be_copied(tmp_path, child):
    out = deliver(child, tmp_path / "out")
    (child / "config.json").unlink()
    (child / "config.json").symlink_to("nowhere")

    with pytest.raises(StoreError, match="cannot write") as caught:
        deliver(child, out, overwrite=True)

    assert caught.value.fix == "choose another output"

    assert verify(out).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "child", "out"]


def test_old_model_is_put_back_if_the_last_rename_fails(tmp_path, child, monkeypatch):
    monkeypatch.setattr(disk, "exchange", lambda *_: False)
    out = deliver(child, tmp_path / "out")

    with pytest.raises(OSError):  # noqa: PT011 (any error of the system)
        module._replace(tmp_path / "vanished", out, tmp_path / "old")

    assert verify(out).ok


@pytest.mark.parametrize("can_exchange", [True, False])
def test_old_model_is_there_until_the_new_one_is(tmp_path, child, monkeypatch, can_exchange):
    out = deliver(child, tmp_path / "out")
    (out / "config.json").write_text("old")
    before = out.stat().st_ino
    if not can_exchange:
        monkeypatch.setattr(disk, "exchange", lambda *_: False)
    new = tmp_path / "x/new"
    shutil.copytree(child, new)

    module._replace(new, out, tmp_path / "x/old")

    left = [path for path in (tmp_path / "x").iterdir() if path.stat().st_ino == before]
    assert verify(out).ok
    assert [path.name for path in left] == ["new" if can_exchange else "old"]


def test_model_that_was_just_moved_away_by_a_killed_process_is_put_back(tmp_path, child):
    left = tmp_path / f".out.{'ab' * 16}"
    shutil.copytree(child, left / "old")
    (left / "new").mkdir()
    left.with_name(f"{left.name}.lock").write_text("")

    recover(tmp_path / "out")

    assert verify(tmp_path / "out").ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "child", "out"]


def test_rests_of_a_killed_process_go_and_the_output_stays(tmp_path, child):
    out = deliver(child, tmp_path / "out")
    left = tmp_path / f".out.{'ab' * 16}"
    shutil.copytree(child, left / "old")
    left.with_name(f"{left.name}.lock").write_text("")
    before = out.stat().st_ino

    recover(out)

    assert out.stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "child", "out"]
