from __future__ import annotations

from pathlib import Path

import pytest

from reuselib.errors import StoreError
from reuselib.lineage.bases import Bases

DIGEST = "ab" * 32


@pytest.fixture
def bases(tmp_path: Path) -> Bases:
    return Bases(tmp_path / "roots")


def test_a_note_is_kept_replaced_and_forgotten(bases, tmp_path):
    assert bases.noted(DIGEST) is None

    bases.note(DIGEST, tmp_path / "one")
    assert bases.noted(DIGEST) == tmp_path / "one"
    bases.note(DIGEST, tmp_path / "other")
    assert bases.noted(DIGEST) == tmp_path / "other"
    bases.forget(DIGEST)

    assert bases.noted(DIGEST) is None


def test_a_note_that_says_so_already_is_not_written_again(bases, tmp_path):
    bases.note(DIGEST, tmp_path)
    (file,) = bases.folder.iterdir()
    before = file.stat().st_ino

    bases.note(DIGEST, tmp_path)

    assert file.stat().st_ino == before


@pytest.mark.parametrize("note", [b"", b"[]", b'{"path":1}', b"\xff"])
def test_damaged_note_is_as_good_as_none(bases, note, tmp_path):
    bases.note(DIGEST, tmp_path)
    (bases.folder / f"{DIGEST}.json").write_bytes(note)

    assert bases.noted(DIGEST) is None


def test_a_folder_is_kept_and_a_note_is_none(bases, tmp_path):
    bases.note(DIGEST, tmp_path)
    assert bases.kept(DIGEST) is None

    (bases.folder / DIGEST).mkdir()

    assert bases.kept(DIGEST) == bases.folder / DIGEST


@pytest.mark.parametrize("use", [Bases.kept, Bases.noted, Bases.forget])
def test_a_name_cannot_leave_the_store(bases, use):
    with pytest.raises(StoreError, match="not a digest"):
        use(bases, "../../x")
