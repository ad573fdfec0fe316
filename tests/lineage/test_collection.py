from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chains import flip
from lineage.stores import DAY, Shop, tensor
from reuselib.errors import StoreError
from reuselib.lineage import collection
from reuselib.lineage.collection import collect
from reuselib.lineage.holdings import survey
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify

TENSOR_BYTES = tensor(0).nbytes


@pytest.fixture
def shop(tmp_path: Path, base: Path) -> Shop:
    return Shop(Store(tmp_path / "store"), base)


def chain(shop: Shop) -> Shop:
    """a <- b <- c and a <- d; e stands alone. From the oldest to the youngest."""
    shop.child("a", seeds=(1, 2, 3, 4))
    shop.child("b", "a", seeds=(1, 2, 3, 5))
    shop.child("c", "b", seeds=(1, 2, 6, 5))
    shop.child("d", "a", seeds=(1, 2, 3, 7))
    shop.child("e", seeds=(20, 21, 22, 23))
    return shop


def told(collected) -> dict[str, str]:
    """What became of each child, by name of the folder."""
    return {each.name: f"{each.action}: {each.why}" for each in collected.items}


class TestPacking:
    def test_what_is_shared_is_stored_once_and_comes_back_bit_for_bit(self, shop):
        chain(shop)
        before = {name: shop.content(name) for name in "abcde"}
        plain = survey(shop.store).num_bytes

        done = collect(shop.store)

        assert shop.plain() == {"e"}
        assert shop.packed() == set("abcd")
        # of 16 tensors 7 are different
        assert plain - done.num_bytes == pytest.approx(9 * TENSOR_BYTES, rel=0.05)
        for name in "dcba":
            folder = shop.store.find(shop.ids[name][:8])
            assert verify(folder).ok
            assert shop.content(name) == before[name]

    def test_what_is_packed_twice_is_packed_from_what_is_there(self, shop):
        chain(shop)
        once = collect(shop.store)
        for name in "abcd":
            shop.store.find(shop.ids[name])
            shop.use(name, days=3)

        again = collect(shop.store)

        assert again.num_bytes == once.num_bytes
        assert shop.packed() == set("abcd")
        assert shop.plain() == {"e"}

    def test_what_was_used_of_late_stays_as_it_is(self, shop):
        chain(shop)
        shop.use("d", days=0.2)

        done = collect(shop.store)

        assert shop.plain() == set("de")
        assert told(done)[shop.ids["d"]] == "kept: it was used 5 h ago"

    def test_a_child_that_is_looked_up_counts_as_used(self, shop):
        chain(shop)
        shop.store.find(shop.ids["c"])
        shop.store.locate(Manifest.read(shop.store.models / shop.ids["d"]).digests.dir_hash)

        collect(shop.store)

        assert shop.plain() == set("cde")

    def test_a_child_in_a_claim_stays_as_it_is(self, shop):
        chain(shop)
        with shop.store.claim("ab" * 32, needs=[shop.ids["a"]]):
            done = collect(shop.store)

        assert shop.plain() == set("ae")
        assert told(done)[shop.ids["a"]] == "kept: a running process needs it"

    def test_a_damaged_child_is_not_packed(self, shop):
        chain(shop)
        weights = shop.store.models / shop.ids["b"] / "model.safetensors"
        flip(weights)

        done = collect(shop.store)

        assert "b" in shop.plain()
        assert "not as recorded" in told(done)[shop.ids["b"]]

    def test_a_packed_form_that_was_damaged_is_made_anew(self, shop):
        chain(shop)
        collect(shop.store)
        before = shop.store.find(shop.ids["b"]) and shop.content("b")
        for path in shop.store.tensors.glob("*/*"):
            path.write_bytes(b"x" * path.stat().st_size)
        shop.use("b", days=3)

        collect(shop.store)
        shop.store.find(shop.ids["b"])

        assert shop.content("b") == before

    def test_a_child_that_was_made_anew_meanwhile_counts(self, shop):
        chain(shop)
        collect(shop.store)
        old = shop.store.packed / shop.ids["b"]
        shutil.copytree(old, shop.store.path / "aside")
        shutil.rmtree(old)
        shop.child("b", "a", seeds=(1, 2, 3, 99))
        (shop.store.path / "aside").rename(old)
        shop.use("b", days=3)
        new = shop.content("b")

        collect(shop.store)
        shop.store.find(shop.ids["b"])

        assert shop.content("b") == new

    def test_a_store_that_was_moved_finds_its_packed_children(self, shop, tmp_path):
        chain(shop)
        collect(shop.store)
        digest = Manifest.read(shop.store.record(shop.ids["c"])).digests.dir_hash
        shop.store.path.rename(tmp_path / "moved")
        moved = Store(tmp_path / "moved")

        assert moved.locate(digest) == moved.models / shop.ids["c"]

    def test_a_missing_tensor_is_told_when_the_child_is_wanted(self, shop):
        chain(shop)
        collect(shop.store)
        shutil.rmtree(shop.store.tensors)

        with pytest.raises(StoreError, match=r"packed child .* is damaged"):
            shop.store.find(shop.ids["a"])
        assert not (shop.store.models / shop.ids["a"]).exists()


class TestLimit:
    def test_leaves_go_first_the_one_that_was_unused_for_longest_before_others(self, shop):
        chain(shop)
        order = []
        for _ in range(5):
            before = shop.plain() | shop.packed()
            collect(shop.store, limit_bytes=survey(shop.store).num_bytes - 1)
            order.append("".join(sorted(before - shop.plain() - shop.packed())))

        # a and b are the oldest, but others were made from them; packing comes before anything is removed
        assert order == ["", "c", "b", "d", "a"]

    def test_no_more_goes_than_must(self, shop):
        chain(shop)
        whole = collect(shop.store).num_bytes

        done = collect(shop.store, limit_bytes=whole - TENSOR_BYTES // 2)

        assert done.fits
        assert shop.plain() | shop.packed() == set("abde")

    def test_what_a_kept_child_was_made_from_stays_whatever_the_limit(self, shop):
        chain(shop)

        done = collect(shop.store, limit_bytes=0, keep=[shop.ids["c"][:8]])

        assert not done.fits
        assert shop.packed() == set("abc")
        assert told(done)[shop.ids["c"]].startswith("packed")
        for name in "abc":
            assert verify(shop.store.find(shop.ids[name])).ok

    def test_the_reason_why_the_rest_stays_is_told(self, shop):
        shop.child("a", seeds=(1,))
        shop.child("b", "a", seeds=(2,))
        shop.child("lone", seeds=(3,))
        shop.use("lone", days=0.5)

        done = collect(shop.store, limit_bytes=0, keep=[shop.ids["b"]])

        assert told(done) == {
            shop.ids["a"]: f"kept: {shop.ids['b'][:12]} was made from it",
            shop.ids["b"]: "kept: you said to keep it",
            shop.ids["lone"]: "kept: it was used 12 h ago",
        }

    def test_caches_go_before_children_and_the_oldest_of_a_kind_first(self, shop):
        shop.child("a")
        for room, days in itertools.product(("lessons", "activations", "states"), (9, 8)):
            folder = shop.store.path / room / (f"{days}" * 64)
            folder.mkdir(parents=True)
            (folder / "x").write_bytes(bytes(1000))
            for path in (folder / "x", folder):
                os.utime(path, (time.time() - days * DAY,) * 2)
        gone = []
        for _ in range(7):
            done = collect(shop.store, limit_bytes=survey(shop.store).num_bytes - 1)
            gone += [(each.what, each.name[0]) for each in done.items if each.action == "removed"]

        expected = [*itertools.product(("lessons", "activations", "states"), "98")]
        assert gone == [*expected, ("child", shop.ids["a"][0])]

    def test_caches_stay_while_a_process_works(self, shop):
        folder = shop.store.path / "lessons" / ("9" * 64)
        folder.mkdir(parents=True)
        with shop.store.claim("ab" * 32):
            collect(shop.store, limit_bytes=0, idle_seconds=0)
            assert folder.is_dir()

        collect(shop.store, limit_bytes=0, idle_seconds=0)
        assert folder.is_dir()  # it takes no room
        (folder / "x").write_bytes(b"x")
        collect(shop.store, limit_bytes=0, idle_seconds=0)
        assert not folder.exists()

    def test_checkpoints_of_finished_children_go_and_those_of_interrupted_ones_are_leaves(
        self, shop
    ):
        shop.child("a")
        rooms = {each: shop.store.path / "checkpoints" / each for each in (shop.ids["a"], "9" * 64)}
        for folder in rooms.values():
            folder.mkdir(parents=True)
            (folder / "x").write_bytes(bytes(1000))
        for path in (rooms["9" * 64] / "x", rooms["9" * 64]):
            os.utime(path, (time.time() - 2 * DAY,) * 2)

        collect(shop.store)
        assert [each.is_dir() for each in rooms.values()] == [False, True]

        collect(shop.store, limit_bytes=1000)
        assert shop.plain() == set()  # unused for longer
        assert rooms["9" * 64].is_dir()
        collect(shop.store, limit_bytes=0)
        assert not rooms["9" * 64].exists()

    def test_kept_bases_stay_for_what_was_made_from_them(self, shop, base):
        key = shop.child("a")
        digest = next(iter(Manifest.read(shop.store.models / key).parents)).digests.dir_hash
        with shop.store.keep_root(digest) as folder:
            shutil.copytree(base, folder, dirs_exist_ok=True)
        os.utime(shop.store.roots / digest, (1000, 1000))

        collect(shop.store, limit_bytes=0, keep=[key])
        assert shop.store.locate(digest)

        collect(shop.store, limit_bytes=0, idle_seconds=0)
        assert shop.store.locate(digest) is None
        assert survey(shop.store).num_bytes == 0

    def test_notes_on_what_is_gone_go_too_and_a_twin_takes_over_as_a_base(self, shop):
        key = shop.child("a")
        digest = Manifest.read(shop.store.models / key).digests.dir_hash
        shop.store.verdicts.note(key, ["accuracy"])
        twin = "ab" * 32
        shutil.copytree(shop.store.models / key, shop.store.models / twin)
        shop.use("a", days=50)

        collect(shop.store, limit_bytes=survey(shop.store).num_bytes - 1, keep=[twin])

        assert shop.store.verdicts.failures(key) == ()
        assert shop.store.locate(digest) == shop.store.models / twin

    def test_a_name_that_fits_no_child_is_refused(self, shop):
        shop.child("a")

        for name in ("deadbeef", "x", "../.."):
            with pytest.raises(StoreError):
                collect(shop.store, keep=[name])


def test_a_dry_run_tells_the_same_and_changes_nothing(shop):
    chain(shop)
    limit = survey(shop.store).num_bytes // 2
    files = {path: path.stat().st_mtime_ns for path in shop.store.path.rglob("*")}

    dry = collect(shop.store, limit_bytes=limit, dry_run=True)

    assert {path: path.stat().st_mtime_ns for path in shop.store.path.rglob("*")} == files
    wet = collect(shop.store, limit_bytes=limit)
    assert dry.items == wet.items
    assert dry.num_bytes == pytest.approx(wet.num_bytes, rel=0.05)
    assert any(each.action == "removed" for each in wet.items)
    assert any(each.action == "packed" for each in wet.items)


def test_a_child_that_cannot_be_read_is_left_alone_and_named(shop):
    chain(shop)
    (shop.store.models / shop.ids["a"] / "lineage/manifest.json").write_text("{")

    done = collect(shop.store, limit_bytes=0, idle_seconds=0)

    assert shop.plain() == {"a"}
    assert "cannot be read" in told(done)[shop.ids["a"]]


def test_a_damaged_list_of_pieces_stops_it_since_tensors_might_be_needed(shop):
    chain(shop)
    collect(shop.store)
    (shop.store.packed / shop.ids["a"] / "pieces.json").write_text("{")
    before = sorted(shop.store.tensors.glob("*/*"))

    with pytest.raises(StoreError, match="is damaged"):
        collect(shop.store, limit_bytes=0, idle_seconds=0)

    assert sorted(shop.store.tensors.glob("*/*")) == before


def test_an_empty_store_is_no_error(shop):
    assert collect(shop.store, limit_bytes=0).items == ()


def test_what_is_used_between_decision_and_deed_stays(shop, monkeypatch):
    chain(shop)
    decide = collection.Choice.make

    def and_then_it_is_used(self, limit_bytes) -> None:
        decide(self, limit_bytes)
        shop.store.find(shop.ids["c"])
        shop.store.find(shop.ids["e"])

    monkeypatch.setattr(collection.Choice, "make", and_then_it_is_used)
    done = collect(shop.store, limit_bytes=0)

    assert {"c", "e"} <= shop.plain()
    assert told(done)[shop.ids["e"]] == "kept: it is being used now"
    assert told(done)[shop.ids["c"]] == "kept: it is being used now"


KILLED = """
import os, signal, sys
from pathlib import Path
left = int(sys.argv[3])
def die_at(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(os, name, call)
for name in ("rename", "replace", "unlink", "mkdir", "fsync", "rmdir"):
    die_at(name)
from reuselib.lineage.collection import collect
from reuselib.lineage.store import Store
store = Store(Path(sys.argv[1]))
if sys.argv[2] == "find":
    store.find(sys.argv[4])
else:
    collect(store, limit_bytes=int(sys.argv[2]))
print("done")
"""


def kill(store: Path, what: str, at: int, *more: str) -> bool:
    """Let a process do it and be killed at some operation; whether it came to its end."""
    command = [sys.executable, "-c", KILLED, str(store), what, str(at), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


def test_killed_anywhere_it_leaves_whole_children_and_is_done_again(shop, tmp_path):
    chain(shop)
    before = {name: shop.content(name) for name in "abcde"}
    limit = collect(shop.store, dry_run=True).num_bytes - 100
    again = tmp_path / "again"
    for at in (0, 3, 9, 17, 26, 37, 50, 64, 80, 100, 120):
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(shop.store.path, again, copy_function=shutil.copy2)
        store = Shop(Store(again), shop.base, ids=shop.ids)
        ended = kill(again, str(limit), at)

        for name in store.plain() | store.packed():
            assert store.store.find(shop.ids[name])
            assert store.content(name) == before[name]
            store.use(name, days=10)
        assert set("abde") <= store.plain()
        collect(store.store, limit_bytes=limit)
        assert not list(store.store.tmp.iterdir())
        if ended:
            break
    assert at > 30


def test_killed_while_unpacking_it_leaves_the_packed_child(shop):
    chain(shop)
    before = shop.content("b")
    collect(shop.store)
    for at in range(0, 30, 4):
        if kill(shop.store.path, "find", at, shop.ids["b"]):
            break
        assert not (shop.store.models / shop.ids["b"]).exists() or shop.content("b") == before
    assert at > 0

    shop.store.find(shop.ids["b"])

    assert shop.content("b") == before
