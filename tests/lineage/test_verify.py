from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lineage.folders import draft_of, write_child
from reuselib.errors import RecipeError, SourceError
from reuselib.lineage.chain import history
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.verify import verify

WEIGHTS = "adapter_model.safetensors"


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def found(folder: Path) -> set[tuple[str, str, str]]:
    report = verify(folder)
    assert report.ok == (not report.problems)
    return {(problem.code, problem.path, problem.tensor) for problem in report.problems}


def test_untouched_child_is_ok_and_says_what_was_not_checked(child):
    report = verify(child)

    assert report.ok
    assert report.manifest == Manifest.read(child)
    assert (report.num_files, report.num_tensors) == (2, 2)
    assert report.num_bytes == sum(
        (child / name).stat().st_size for name in (WEIGHTS, "config.json")
    )
    assert len(report.checked) == 7
    assert (report.tier, report.signer) == ("recorded", "")
    assert report.files.keys() == {
        path.relative_to(child).as_posix() for path in child.rglob("*") if path.is_file()
    }
    unchecked = " ".join(report.unchecked)
    for word in ("signature", "parents' weights", "metrics", "README.md"):
        assert word in unchecked


def test_grandchild_is_ok(tmp_path, child):
    write_child(tmp_path / "leaf", draft_of(Manifest.read(child), "leaf"), history(child))

    assert verify(tmp_path / "leaf").ok


def test_moved_or_copied_child_with_another_card_is_ok(tmp_path, child):
    shutil.move(child, tmp_path / "elsewhere")
    (tmp_path / "elsewhere/README.md").write_text("a card")

    assert verify(tmp_path / "elsewhere").ok


def test_every_flipped_byte_of_the_weights_is_noticed(child):
    path = child / WEIGHTS
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        flip(path, position)
        assert any(problem.path == WEIGHTS for problem in verify(child).problems), position
        path.write_bytes(good)


def test_flipped_weight_is_named_by_file_and_tensor(child):
    # The wider type comes first in the file, so the last byte is lora_B's.
    flip(child / WEIGHTS)

    assert found(child) == {("DIGEST_MISMATCH", WEIGHTS, "lora_B")}


def test_edited_config_is_named(child):
    (child / "config.json").write_text('{"r": 9}')

    assert found(child) == {("DIGEST_MISMATCH", "config.json", "")}


def test_changed_metadata_of_the_weights_is_named_though_no_tensor_differs(child):
    save_file(load_file(child / WEIGHTS), child / WEIGHTS, {"format": "np"})

    assert found(child) == {("DIGEST_MISMATCH", WEIGHTS, "")}


def reshape(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "lora_B": weights["lora_B"].reshape(4, 2)}, folder / WEIGHTS)


def rename_tensor(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({"lora_A": weights["lora_A"], "lora_C": weights["lora_B"]}, folder / WEIGHTS)


def edit_both(folder: Path) -> None:
    """Config and the list that would give it away."""
    (folder / "config.json").write_text("{}")
    lines = (folder / "lineage/files.sha256").read_text().splitlines()
    lines[1] = f"{hashlib.sha256(b'{}').hexdigest()}  config.json"
    (folder / "lineage/files.sha256").write_text("\n".join(lines) + "\n")


def write(name: str, data: bytes = b"x") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


ANCESTOR = "lineage/ancestors/" + "1" * 64 + ".json"

CASES: dict[str, tuple[Callable[[Path], object], set[tuple[str, str, str]]]] = {
    "reshaped": (reshape, {("DIGEST_MISMATCH", WEIGHTS, "lora_B")}),
    "tensor renamed": (
        rename_tensor,
        {("MISSING_TENSOR", WEIGHTS, "lora_B"), ("UNKNOWN_TENSOR", WEIGHTS, "lora_C")},
    ),
    "file deleted": (
        lambda folder: (folder / "config.json").unlink(),
        {("MISSING_FILE", "config.json", "")},
    ),
    "weights deleted": (
        lambda folder: (folder / WEIGHTS).unlink(),
        {("MISSING_FILE", WEIGHTS, "")},
    ),
    "file renamed": (
        lambda folder: (folder / "config.json").rename(folder / "conf.json"),
        {("DIGEST_MISMATCH", "conf.json", ""), ("MISSING_FILE", "config.json", "")},
    ),
    "loadable added": (write("extra.json"), {("UNSIGNED_LOADABLE", "extra.json", "")}),
    "other added": (write("notes.pdf"), {("UNSIGNED_FILE", "notes.pdf", "")}),
    "weights added": (
        lambda folder: save_file({"x": np.ones(1)}, folder / "model.safetensors"),
        {("UNSIGNED_LOADABLE", "model.safetensors", "")},
    ),
    "same weights twice": (
        lambda folder: shutil.copy(folder / WEIGHTS, folder / "model.safetensors"),
        {
            ("AMBIGUOUS_TENSOR", "model.safetensors", "lora_A"),
            ("UNSIGNED_LOADABLE", "model.safetensors", ""),
        },
    ),
    "pickle added": (
        write("pytorch_model.bin", b"\x80\x04x."),
        {
            ("UNSAFE_FORMAT", "pytorch_model.bin", ""),
            ("UNSIGNED_LOADABLE", "pytorch_model.bin", ""),
        },
    ),
    "truncated": (
        lambda folder: os.truncate(folder / WEIGHTS, 150),
        {("TRUNCATED", WEIGHTS, ""), ("DIGEST_MISMATCH", WEIGHTS, "")},
    ),
    "trailing data": (
        lambda folder: append(folder / WEIGHTS, b"x"),
        {("BAD_SAFETENSORS", WEIGHTS, ""), ("DIGEST_MISMATCH", WEIGHTS, "")},
    ),
    "link added": (
        lambda folder: (folder / "x").symlink_to("/etc/hostname"),
        {("UNSAFE_PATH", "x", "")},
    ),
    "link in the record": (
        lambda folder: (folder / "lineage/x").symlink_to("/etc/hostname"),
        {("UNSAFE_PATH", "lineage/x", "")},
    ),
    "no manifest": (
        lambda folder: (folder / MANIFEST).unlink(),
        {("MISSING_LINEAGE", MANIFEST, "")},
    ),
    "no record": (
        lambda folder: shutil.rmtree(folder / "lineage"),
        {("MISSING_LINEAGE", MANIFEST, "")},
    ),
    "manifest not canonical": (
        lambda folder: append(folder / MANIFEST, b" "),
        {("BAD_JSON", MANIFEST, "")},
    ),
    "metrics edited": (
        write("lineage/metrics.json", b"{}"),
        {("DIGEST_MISMATCH", "lineage/metrics.json", "")},
    ),
    "metrics deleted": (
        lambda folder: (folder / "lineage/metrics.json").unlink(),
        {("MISSING_FILE", "lineage/metrics.json", "")},
    ),
    "record extended": (write("lineage/more.json"), {("UNSIGNED_FILE", "lineage/more.json", "")}),
    "list and file edited together": (
        edit_both,
        {("DIGEST_MISMATCH", "lineage/files.sha256", ""), ("DIGEST_MISMATCH", "", "")},
    ),
    "foreign ancestor added": (write(ANCESTOR), {("PARENT_STATEMENT_MISMATCH", ANCESTOR, "")}),
}


@pytest.mark.parametrize("case", CASES)
def test_change_is_named(child, case):
    change, expected = CASES[case]
    change(child)

    assert found(child) == expected


def test_swapped_names_of_two_shards_are_noticed(tmp_path, draft, pinned):
    folder = tmp_path / "x"
    folder.mkdir()
    save_file({"a": np.ones(2)}, folder / "a.safetensors")
    save_file({"b": np.zeros(2)}, folder / "b.safetensors")
    write_child(folder, draft, {pinned.sha256: pinned.payload()})
    (folder / "a.safetensors").rename(folder / "c")
    (folder / "b.safetensors").rename(folder / "a.safetensors")
    (folder / "c").rename(folder / "b.safetensors")

    assert found(folder) == {
        ("DIGEST_MISMATCH", "a.safetensors", "b"),
        ("DIGEST_MISMATCH", "b.safetensors", "a"),
    }


def test_edited_ancestor_is_refused(child):
    path = next((child / "lineage/ancestors").iterdir())
    flip(path, 50)

    assert found(child) == {("PARENT_STATEMENT_MISMATCH", f"lineage/ancestors/{path.name}", "")}


def test_missing_ancestor_is_noted_but_nothing_wrong(child):
    next((child / "lineage/ancestors").iterdir()).unlink()

    report = verify(child)

    assert report.ok
    assert any("MISSING_PARENT" in line and "'base'" in line for line in report.unchecked)


def test_manifest_of_another_model_does_not_fit(tmp_path, child, draft, pinned):
    other = tmp_path / "other"
    other.mkdir()
    save_file({"x": np.ones(1)}, other / "model.safetensors")
    write_child(other, draft, {pinned.sha256: pinned.payload()})
    shutil.rmtree(child / "lineage")
    shutil.copytree(other / "lineage", child / "lineage")

    assert not verify(child).ok


def test_pickle_that_was_recorded_is_still_refused(tmp_path, draft, pinned):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"\x80\x02x.")
    write_child(folder, draft, {pinned.sha256: pinned.payload()})

    assert found(folder) == {("UNSAFE_FORMAT", "optimizer.pt", "")}


def test_missing_folder_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="no folder"):
        verify(tmp_path / "nowhere")


def test_nothing_of_a_model_folder_enters_the_import_path(child):
    before = list(sys.path)
    verify(child)

    assert sys.path == before


def test_file_in_place_of_a_folder_is_named_so(tmp_path):
    (tmp_path / "x").write_text("x")

    with pytest.raises(SourceError, match="is no folder"):
        verify(tmp_path / "x")


def test_paths_may_be_texts(child, tmp_path):
    (tmp_path / "policy.yaml").write_text("require: [recorded]\n")

    assert verify(str(child), policy=str(tmp_path / "policy.yaml")).ok


def test_policy_of_the_folder_is_refused(child):
    (child / "policy.yaml").write_text("unrecorded: warn\n")

    with pytest.raises(RecipeError, match="lies in the model folder"):
        verify(child, policy=child / "policy.yaml")


def test_file_that_cannot_be_read_is_named_once(child, monkeypatch):
    genuine = Path.open

    def refusing(self, *arguments, **options):
        if self.name == "config.json":
            raise PermissionError(13, "Permission denied", str(self))
        return genuine(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    report = verify(child)

    assert report.is_unreadable
    (problem,) = report.problems
    assert "Permission denied" in problem.message
    assert "\n" not in problem.message


def test_huge_inventory_is_not_read(child):
    with (child / "lineage/tensors.jsonl").open("r+b") as file:
        file.truncate(2**25 + 1)

    assert ("LIMIT", "lineage/tensors.jsonl", "") in found(child)
