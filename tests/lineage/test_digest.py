from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import digest


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_payload_is_everything_but_card_record_and_signature_at_the_top(tmp_path):
    write(tmp_path, "config.json", "README.md", "lineage/manifest.json", "model.sig")
    write(tmp_path, "sub/README.md", "sub/lineage/x", "a-b/x", "a.txt", "a/x", "Z", ".hidden")

    assert digest.payload_files(tmp_path) == [
        ".hidden",
        "Z",
        "a-b/x",
        "a.txt",
        "a/x",
        "config.json",
        "sub/README.md",
        "sub/lineage/x",
    ]


def test_dir_hash_is_that_of_sha256sum(tmp_path):
    write(tmp_path, "b", "a/c", "a.txt", "\u00e9")
    names = ["a.txt", "a/c", "b", "\u00e9"]

    lines = subprocess.run(
        ["sha256sum", *names], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    files = digest.file_digests(tmp_path)

    assert digest.checksums(files) == lines
    assert digest.dir_hash(files) == hashlib.sha256(lines).hexdigest()


def test_dir_hash_does_not_depend_on_the_order_of_the_mapping():
    files = {"b": "0" * 64, "a": "1" * 64}

    assert digest.dir_hash(files) == digest.dir_hash(dict(reversed(files.items())))


def test_checksums_are_read_back(tmp_path):
    write(tmp_path, "b", "a/c", "a  b")
    files = digest.file_digests(tmp_path)

    assert digest.parse_checksums(digest.checksums(files)) == files


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"0" * 64 + b" a\n",
        b"0" * 64 + b"  a",
        b"0" * 64 + b"  b\n" + b"0" * 64 + b"  a\n",
        b"\xff\n",
    ],
)
def test_other_lists_are_refused(data):
    with pytest.raises(IntegrityError, match="BAD_CHECKSUMS"):
        digest.parse_checksums(data)


def link(folder: Path) -> None:
    (folder / "x").symlink_to("config.json")


def linked_folder(folder: Path) -> None:
    (folder / "x").symlink_to(folder.parent)


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "x")


def not_unicode(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("")


@pytest.mark.parametrize(
    "spoil",
    [
        link,
        linked_folder,
        fifo,
        not_unicode,
        lambda folder: write(folder, "a\nb"),
        lambda folder: write(folder, "a\\b"),
        lambda folder: write(folder, "C:x"),
        lambda folder: write(folder, "dot."),
        lambda folder: write(folder, "Config.json"),
        lambda folder: write(folder, "caf\u00e9", "cafe\u0301"),
        lambda folder: write(folder, "Sub/a", "sub/a"),
        lambda folder: write(folder, "lineage/a\tb"),
    ],
)
def test_what_other_systems_take_otherwise_is_refused(tmp_path, spoil):
    write(tmp_path, "config.json")
    spoil(tmp_path)

    with pytest.raises(IntegrityError) as caught:
        digest.payload_files(tmp_path)

    assert caught.value.code == "UNSAFE_PATH"
    assert caught.value.path


def test_hub_snapshot_may_link_into_the_blobs_of_its_own_repository(tmp_path):
    snapshot = tmp_path / "repo/snapshots/abc"
    write(tmp_path, "repo/blobs/123", "other")
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/123")
    (snapshot / "sub/x").symlink_to("../../../blobs/123")

    assert digest.payload_files(snapshot, follow_links=True) == ["config.json", "sub/x"]
    with pytest.raises(IntegrityError, match="UNSAFE_PATH"):
        digest.payload_files(snapshot)

    (snapshot / "y").symlink_to("../../../other")
    with pytest.raises(IntegrityError, match="UNSAFE_PATH"):
        digest.payload_files(snapshot, follow_links=True)


def test_missing_folder_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="no folder"):
        digest.payload_files(tmp_path / "nowhere")


def test_file_sha256_is_the_plain_one(tmp_path):
    write(tmp_path, "x")

    assert digest.file_sha256(tmp_path / "x") == hashlib.sha256(b"x").hexdigest()


def test_nothing_hides_in_a_folder_called_like_the_card_or_the_signature(tmp_path):
    write(tmp_path, "README.md/evil.py", "model.sig/x")

    assert digest.payload_files(tmp_path) == ["README.md/evil.py", "model.sig/x"]


def test_file_called_like_the_record_is_payload(tmp_path):
    write(tmp_path, "lineage")

    assert digest.payload_files(tmp_path) == ["lineage"]


def test_deep_nesting_is_refused(tmp_path):
    write(tmp_path, "/".join("a" * 70))

    with pytest.raises(IntegrityError, match="LIMIT"):
        digest.payload_files(tmp_path)
