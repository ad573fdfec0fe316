from __future__ import annotations

from pathlib import Path

import pytest

from lineage.folders import CHILD_ID
from reuselib.errors import StoreError
from reuselib.lineage.verdicts import Verdicts


@pytest.fixture
def verdicts(tmp_path: Path) -> Verdicts:
    return Verdicts(tmp_path / "verdicts")


def test_a_note_is_kept_replaced_and_forgotten(verdicts):
    assert verdicts.failures(CHILD_ID) == ()

    verdicts.note(CHILD_ID, ["accuracy is 0.1"])
    assert verdicts.failures(CHILD_ID) == ("accuracy is 0.1",)
    verdicts.note(CHILD_ID, ["f1 is 0.1", "loss is 9"])
    assert verdicts.failures(CHILD_ID) == ("f1 is 0.1", "loss is 9")
    verdicts.note(CHILD_ID, [])
    verdicts.note(CHILD_ID, [])

    assert verdicts.failures(CHILD_ID) == ()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"failed": 3}', b"{"])
def test_a_damaged_note_says_nothing(verdicts, content):
    verdicts.folder.mkdir()
    (verdicts.folder / f"{CHILD_ID}.json").write_bytes(content)

    assert verdicts.failures(CHILD_ID) == ()


def test_a_name_cannot_leave_the_store(verdicts):
    with pytest.raises(StoreError, match="not a digest"):
        verdicts.note("../../x", ["no"])
    with pytest.raises(StoreError, match="not a digest"):
        verdicts.failures("../../x")
