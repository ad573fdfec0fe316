"""Disks that are full, read-only or elsewhere, and clocks that are wrong: told in words, with nothing half-made."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from chains import MERGE, SHORT, text_rows
from reuselib.adapters.lora import LoRA
from reuselib.adapters.sparsify import Sparsify
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.derivation.plan import plan
from reuselib.errors import Interrupted, StoreError
from reuselib.lineage.collection import collect
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify
from reuselib.progress import Progress, Report
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "base", head=True)


def make(base: Path, store: Path, *steps, output: Path | None = None, report: Report | None = None):
    settled = plan(
        base,
        steps or (Sparsify(sparsity=0.5),),
        task=TextClassification(),
        data=text_rows(),
        store=store,
    )
    return execute(settled, Runtime(output=output, overwrite=True, report=report))


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory; skipped where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def children(store: Path) -> list[Path]:
    return sorted((store / "models").glob("*"))


def test_disk_that_fills_in_the_middle_leaves_nothing_half_made_and_room_is_all_it_takes(
    base, tmp_path
):
    with small_disk(tmp_path / "disk", "size=160k") as disk:
        with pytest.raises(StoreError, match="bytes free") as caught:
            make(base, disk / "store", LoRA(r=2, fit=SHORT), MERGE)
        assert "free some space" in caught.value.fix
        assert all(verify(folder).ok for folder in children(disk / "store"))
        assert list((disk / "store/tmp").iterdir()) == []

        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        made = make(base, disk / "store", LoRA(r=2, fit=SHORT), MERGE)

        apart = make(base, tmp_path / "apart", LoRA(r=2, fit=SHORT), MERGE)
        assert [each.manifest.digests for each in made.children] == [
            each.manifest.digests for each in apart.children
        ]


def test_output_disk_that_is_full_keeps_the_old_model_and_the_child(base, tmp_path):
    with small_disk(tmp_path / "disk", "size=220k") as disk:
        make(base, tmp_path / "store", Sparsify(sparsity=0.25), output=disk / "out")
        before = verify(disk / "out")
        assert before.ok

        with pytest.raises(StoreError, match="choose another output"):
            make(base, tmp_path / "store", output=disk / "out")

        assert verify(disk / "out").ok
        assert [path.name for path in disk.iterdir()] == ["out"]
        assert len(children(tmp_path / "store")) == 2


def test_store_that_may_only_be_read_is_refused_before_anything_is_computed(base, tmp_path):
    with small_disk(tmp_path / "disk", "size=1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        with pytest.raises(StoreError, match="Read-only") as caught:
            make(base, disk / "store")

    assert "make it writable" in caught.value.fix


def test_finished_children_come_from_a_store_that_may_only_be_read(base, tmp_path):
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        first = make(base, disk / "store")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        again = make(base, disk / "store", output=tmp_path / "out")

        assert again.children[0].reused
        assert again.children[0].manifest == first.children[0].manifest
        assert verify(tmp_path / "out").ok


def test_store_and_output_may_lie_on_different_disks(base, tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system here")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        for store, output in (
            (Path(folder) / "store", tmp_path / "out"),
            (tmp_path / "store", Path(folder) / "out"),
        ):
            make(base, store, Sparsify(sparsity=0.25), output=output)
            made = make(base, store, output=output)

            assert verify(output).ok
            assert (output / "lineage/manifest.json").read_bytes() == (
                made.children[0].folder / "lineage/manifest.json"
            ).read_bytes()


def test_packed_child_needs_room_and_stays_whole_without(base, tmp_path):
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        names = packed_pair(base, disk / "store")
        store = Store.default(disk / "store")
        with (disk / "ballast").open("wb") as ballast, suppress(OSError):
            while ballast.write(bytes(2**16)):
                ballast.flush()

        with pytest.raises(StoreError, match="bytes free") as caught:
            store.find(names[0])
        assert "free some space" in caught.value.fix
        assert children(store.path) == []

        (disk / "ballast").unlink()
        assert all(verify(store.find(name)).ok for name in names)


def test_packed_child_in_a_store_that_may_only_be_read_is_told(base, tmp_path):
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        names = packed_pair(base, disk / "store")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        with pytest.raises(StoreError, match="Read-only") as caught:
            Store.default(disk / "store").find(names[0])
        with pytest.raises(StoreError, match="Read-only"):
            collect(Store.default(disk / "store"), idle_seconds=0)

    assert "make it writable" in caught.value.fix


def packed_pair(base: Path, store: Path) -> list[str]:
    """Ids of two children that share tensors; packed."""
    made = [make(base, store, Sparsify(sparsity=each)) for each in (0.25, 0.5)]
    collect(Store.default(store), idle_seconds=0)
    assert children(store) == []
    return [each.children[0].manifest.derivation_id for each in made]


def test_clock_that_goes_backwards_changes_nothing(base, tmp_path, monkeypatch):
    expected = make(base, tmp_path / "store", LoRA(r=2, fit=SHORT))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10**7)
    for path in (tmp_path / "store").rglob("*"):
        os.utime(path, (now + 10**6, now + 10**6))

    again = make(base, tmp_path / "store", LoRA(r=2, fit=SHORT), MERGE)
    apart = make(base, tmp_path / "apart", LoRA(r=2, fit=SHORT))

    assert [each.reused for each in again.children] == [True, False]
    assert apart.children[0].manifest.digests == expected.children[0].manifest.digests


def test_training_goes_on_under_a_clock_that_went_backwards(base, tmp_path, monkeypatch):
    def stop(progress: Progress) -> None:
        if progress.done == 1 and progress.phase.endswith("training"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        make(base, tmp_path / "store", LoRA(r=2, fit=SHORT), report=stop)
    now, remarks = time.time(), list[str]()
    monkeypatch.setattr(time, "time", lambda: now - 10**7)

    def hear(progress: Progress) -> None:
        remarks.append(progress.remark)

    again = make(base, tmp_path / "store", LoRA(r=2, fit=SHORT), report=hear)
    apart = make(base, tmp_path / "apart", LoRA(r=2, fit=SHORT))

    assert any("resumed after step 1" in each for each in remarks)
    assert again.children[0].manifest.digests == apart.children[0].manifest.digests


def test_what_was_used_by_a_clock_that_is_ahead_is_not_collected(base, tmp_path):
    made = make(base, tmp_path / "store", Sparsify(sparsity=0.25))
    note = tmp_path / "store/uses" / made.children[0].manifest.derivation_id
    os.utime(note, (time.time() + 10**6,) * 2)

    done = collect(Store.default(tmp_path / "store"), limit_bytes=0)

    assert not done.fits
    assert children(tmp_path / "store") == [made.children[0].folder]
