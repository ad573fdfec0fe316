from __future__ import annotations

from pathlib import Path

import pytest

from reuselib.errors import StoreError
from reuselib.lineage.rooms import Room

DIGEST = "ab" * 32


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "store", "states")


def put(room: Room, text: str, *parts: str, **how: object) -> str:
    with room.fill(DIGEST, *parts, **how) as folder:
        assert list(folder.iterdir()) == []
        (folder / "text").write_text(text)
    return (room.place(DIGEST, *parts) / "text").read_text()


def test_what_is_whole_stays_and_what_is_not_is_replaced(room):
    assert put(room, "one") == "one"

    assert put(room, "two", is_whole=Path.is_dir) == "one"
    assert put(room, "three", is_whole=lambda at: (at / "all").exists()) == "three"
    assert put(room, "four") == "four"

    assert list((room.store / "tmp").iterdir()) == []


def test_several_things_lie_under_one_digest(room):
    assert (put(room, "one", "1"), put(room, "ten", "10")) == ("one", "ten")

    assert sorted(path.name for path in room.place(DIGEST).iterdir()) == ["1", "10"]


def test_a_block_that_raises_leaves_what_was_there(room):
    put(room, "one")

    with pytest.raises(TypeError), room.fill(DIGEST) as folder:
        (folder / "text").write_text(3)  # type: ignore[arg-type]

    assert (room.place(DIGEST) / "text").read_text() == "one"
    assert list((room.store / "tmp").iterdir()) == []


@pytest.mark.parametrize("name", ["", "../../x", "AB" * 32, "ab" * 31])
def test_a_name_cannot_leave_the_store(room, name):
    with pytest.raises(StoreError, match="not a digest"):
        room.place(name)
    with pytest.raises(StoreError, match="not a digest"), room.fill(name):
        pass

    assert not room.store.exists()
