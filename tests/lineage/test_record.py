from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace

import pytest

from lineage.folders import write_child
from reuselib.errors import IntegrityError
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.record import record
from reuselib.lineage.verify import verify


def test_record_writes_all_files_and_returns_what_is_read(tmp_path, draft, pinned):
    manifest = write_child(tmp_path / "x", draft, {pinned.sha256: pinned.payload()})

    names = {str(p.relative_to(tmp_path / "x")) for p in tmp_path.glob("x/lineage/**/*.*")}
    assert names == {
        "lineage/manifest.json",
        "lineage/files.sha256",
        "lineage/tensors.jsonl",
        "lineage/metrics.json",
        "lineage/environment.json",
        f"lineage/ancestors/{pinned.sha256}.json",
    }
    assert manifest == Manifest.read(tmp_path / "x")


def test_every_file_of_the_record_is_bound_by_digest(child):
    byproducts = Manifest.read(child).details.byproducts

    assert len(byproducts) == 4
    for item in byproducts:
        data = (child / item.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == item.digest["sha256"]


def test_folder_is_checked_by_plain_sha256sum(child):
    command = ["sha256sum", "--strict", "-c", "lineage/files.sha256"]
    subprocess.run(command, cwd=child, check=True, capture_output=True)

    digest = hashlib.sha256((child / "lineage/files.sha256").read_bytes()).hexdigest()
    assert digest == Manifest.read(child).digests.dir_hash


def test_tensors_are_listed_with_their_file(child):
    rows = [json.loads(line) for line in (child / "lineage/tensors.jsonl").read_text().splitlines()]

    assert [(row["name"], row["dtype"], row["shape"], row["file"]) for row in rows] == [
        ("lora_A", "F64", [8], "adapter_model.safetensors"),
        ("lora_B", "F32", [2, 4], "adapter_model.safetensors"),
    ]


def test_ancestors_that_are_not_reached_are_left_out(tmp_path, draft, pinned):
    other = replace(pinned, name="unrelated")
    ancestors = {pinned.sha256: pinned.payload(), other.sha256: other.payload()}

    write_child(tmp_path / "x", draft, ancestors)

    assert [p.stem for p in tmp_path.glob("x/lineage/ancestors/*")] == [pinned.sha256]


def test_parent_without_its_manifest_is_refused_and_no_manifest_is_left(tmp_path, draft):
    with pytest.raises(IntegrityError, match="MISSING_PARENT"):
        write_child(tmp_path / "x", draft, {})

    assert not (tmp_path / "x/lineage").exists()


def test_folder_without_weights_is_refused(tmp_path, draft, pinned):
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(IntegrityError, match="holds no weights"):
        record(tmp_path, draft, metrics={}, environment={}, ancestors={})


def test_same_child_recorded_twice_is_byte_equal(tmp_path, draft, pinned):
    ancestors = {pinned.sha256: pinned.payload()}

    assert write_child(tmp_path / "x", draft, ancestors) == write_child(
        tmp_path / "y", draft, ancestors
    )
    for path in (tmp_path / "x/lineage").glob("*.*"):
        assert path.read_bytes() == (tmp_path / "y/lineage" / path.name).read_bytes()


def test_a_finding_is_written_beside_the_manifest_and_bound_by_digest(tmp_path, draft, pinned):
    folder = tmp_path / "x"
    ancestors = {pinned.sha256: pinned.payload()}

    write_child(folder, draft, ancestors, byproducts={"sensitivity": {"ffn": [0.5, 1.0]}})

    assert json.loads((folder / "lineage/sensitivity.json").read_text()) == {"ffn": [0.5, 1]}
    assert verify(folder).ok
    (folder / "lineage/sensitivity.json").write_text('{"ffn":[0.5,2]}')
    assert [problem.code for problem in verify(folder).problems] == ["DIGEST_MISMATCH"]


@pytest.mark.parametrize("name", ["metrics", "manifest", "../config", "a/b", "A", ""])
def test_a_finding_cannot_take_the_place_of_another_file(tmp_path, draft, pinned, name):
    with pytest.raises(ValueError, match="cannot be named"):
        write_child(tmp_path / "x", draft, {pinned.sha256: pinned.payload()}, byproducts={name: 1})
