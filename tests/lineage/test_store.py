from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lineage.folders import CHILD_ID
from reuselib.errors import StoreError
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify
from reuselib.places import cache_folder

OTHER_ID = "c0ffee" + "1" * 58


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def filled(store: Store, child: Path) -> Store:
    fill(store, child)
    return store


def fill(store: Store, child: Path, derivation_id: str = CHILD_ID) -> None:
    with store.fill(derivation_id) as folder:
        shutil.copytree(child, folder, dirs_exist_ok=True)


def test_empty_store_holds_nothing(store):
    assert store.find(CHILD_ID) is None
    assert store.locate("ab" * 32) is None


def test_child_is_found_by_its_id_and_by_unique_first_digits(filled, child):
    fill(filled, child, OTHER_ID)

    assert filled.find(CHILD_ID).name == CHILD_ID
    assert filled.find("c0ffee11").name == OTHER_ID
    assert filled.find("deadbeef") is None
    assert verify(filled.find(CHILD_ID)).ok


def test_digits_that_fit_two_children_are_refused(filled, child):
    fill(filled, child, CHILD_ID[:-1] + "1")

    with pytest.raises(StoreError, match="fits 2 children"):
        filled.find(CHILD_ID[:20])


@pytest.mark.parametrize("name", ["c0ffee", "../../etc", "C0FFEE00", "", "x" * 64, "0" * 65])
def test_what_is_no_id_is_refused(filled, name):
    with pytest.raises(StoreError):
        filled.find(name)
    with pytest.raises(StoreError), filled.fill(name):
        pass


def test_child_appears_only_when_the_block_is_done(store, child):
    with store.fill(CHILD_ID) as folder:
        assert list(folder.iterdir()) == []
        shutil.copytree(child, folder, dirs_exist_ok=True)
        assert store.find(CHILD_ID) is None

    assert store.find(CHILD_ID)
    assert list((store.path / "tmp").iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_block_that_raises_leaves_nothing_and_its_error_passes(store, error):
    def work() -> None:
        with store.fill(CHILD_ID) as folder:
            (folder / "x").write_text("x")
            raise error

    with pytest.raises(error):
        work()

    assert store.find(CHILD_ID) is None
    assert list((store.path / "tmp").iterdir()) == []


def test_who_comes_second_keeps_the_winner(store, child):
    with store.fill(CHILD_ID) as folder:
        shutil.copytree(child, folder, dirs_exist_ok=True)
        fill(store, child)
        inode = store.find(CHILD_ID).stat().st_ino

    assert store.find(CHILD_ID).stat().st_ino == inode
    assert list((store.path / "tmp").iterdir()) == []


def test_many_at_once_leave_one_whole_child(store, child):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fill(store, child), range(16)))

    assert [path.name for path in (store.path / "models").iterdir()] == [CHILD_ID]
    assert verify(store.find(CHILD_ID)).ok


def test_child_damaged_by_hand_is_made_again(filled, child):
    (filled.find(CHILD_ID) / "lineage/manifest.json").unlink()
    assert filled.find(CHILD_ID) is None

    fill(filled, child)

    assert verify(filled.find(CHILD_ID)).ok


def test_killed_process_leaves_no_child_and_its_rest_is_swept(store, child):
    code = (
        "import sys, time, shutil\n"
        "from pathlib import Path\n"
        "from reuselib.lineage.store import Store\n"
        "with Store(Path(sys.argv[1])).fill(sys.argv[2]) as folder:\n"
        "    shutil.copytree(sys.argv[3], folder, dirs_exist_ok=True)\n"
        "    print('copied', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(store.path), CHILD_ID, str(child)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert store.find(CHILD_ID) is None
    assert list((store.path / "tmp").iterdir())

    fill(store, child)

    assert verify(store.find(CHILD_ID)).ok
    assert list((store.path / "tmp").iterdir()) == []


def test_unwritable_store_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file/store")

    for use in (store.check, lambda: store.remember_root("ab" * 32, tmp_path)):
        with pytest.raises(StoreError, match=r"cannot write .*bytes free") as caught:
            use()
        assert "REUSELIB_STORE" in caught.value.fix
    with pytest.raises(StoreError, match="bytes free"), store.fill(CHILD_ID):
        pass


def test_writable_store_passes_the_check_and_holds_nothing_of_it(store):
    store.check()

    assert list((store.path / "tmp").iterdir()) == []


def test_full_disk_is_explained_also_behind_compiled_code(store):
    with pytest.raises(StoreError, match="bytes free") as caught, store.fill(CHILD_ID):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    assert "free some space" in caught.value.fix


def test_root_is_located_where_it_was_last_seen(store, base, tmp_path):
    digest = "ab" * 32
    store.remember_root(digest, tmp_path / "gone")
    assert store.locate(digest) is None

    store.remember_root(digest, base)

    assert store.locate(digest) == base


def test_root_from_python_is_kept(store, base, tmp_path):
    store.remember_root("ab" * 32, tmp_path)
    with store.keep_root("ab" * 32) as folder:
        shutil.copytree(base, folder, dirs_exist_ok=True)

    kept = store.locate("ab" * 32)

    assert kept.parent.name == "roots"
    assert (kept / "model.safetensors").exists()


def test_child_is_exported(filled, tmp_path):
    folder = filled.export(CHILD_ID[:8], tmp_path / "out")

    assert verify(folder).ok
    with pytest.raises(StoreError, match="--overwrite"):
        filled.export(CHILD_ID, tmp_path / "out")
    with pytest.raises(StoreError, match="has no child"):
        filled.export("deadbeef", tmp_path / "new")


def test_what_gates_said_of_a_child_does_not_change_it(filled):
    before = sorted(path.stat().st_mtime_ns for path in filled.find(CHILD_ID).rglob("*"))

    filled.verdicts.note(CHILD_ID, ["accuracy is 0.1"])

    assert filled.verdicts.failures(CHILD_ID) == ("accuracy is 0.1",)
    assert before == sorted(p.stat().st_mtime_ns for p in filled.find(CHILD_ID).rglob("*"))


def test_default_place_follows_argument_then_variables_then_cache(monkeypatch, tmp_path):
    for name in ("REUSELIB_STORE", "REUSELIB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.default().path == cache_folder()
    monkeypatch.setenv("REUSELIB_CACHE", "/cache")
    assert Store.default().path == Path("/cache")
    monkeypatch.setenv("REUSELIB_STORE", "~/store")
    assert Store.default().path == tmp_path / "store"
    assert Store.default("/given").path == Path("/given")
    assert Store.default(Path("given")).path == Path(os.getcwd()) / "given"
