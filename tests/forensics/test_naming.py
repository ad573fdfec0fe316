from __future__ import annotations

import shutil

from golden import golden
from reuselib.forensics.naming import names_of

ONE, TWO = "ab" * 32, "cd" * 32


def test_folders_are_called_by_as_many_parts_as_tell_them_apart(tmp_path):
    for place in ("x/m", "y/m", "n"):
        (tmp_path / place).mkdir(parents=True)

    assert names_of([tmp_path / "x/m", tmp_path / "n"]) == ["m", "n"]
    assert names_of([tmp_path / "x/m", tmp_path / "y/m"]) == ["x/m", "y/m"]
    assert names_of([tmp_path / "n", tmp_path / "n"]) == ["n", "n"]


def test_children_of_a_store_are_called_as_their_manifests_say(tmp_path):
    for digest in (ONE, TWO):
        shutil.copytree(golden("int8"), tmp_path / digest)

    first, second = names_of([tmp_path / ONE, tmp_path / TWO])

    assert first.endswith("(abababab)")
    assert second.endswith("(cdcdcdcd)")
    assert first.partition(" (")[0] == second.partition(" (")[0] != ""


def test_a_child_without_a_readable_manifest_has_its_short_digest(tmp_path):
    (tmp_path / ONE).mkdir()

    assert names_of([tmp_path / ONE]) == ["abababab"]
