from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import pytest

from reuselib.scanning.archives import MAX_DATA, MAX_MEMBERS, members
from scanning.payloads import tarred, zipped


def read(data: bytes, kind: str):
    return list(members(io.BytesIO(data), kind))


def codes(data: bytes, kind: str) -> set[str]:
    return {code for member in read(data, kind) for code, _ in member.faults}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_members_of_a_zip_are_those_that_zipfile_reads(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in ("a.txt", "b/c.bin", "ü"):
            archive.writestr(name, name.encode() * 1000)
    with zipfile.ZipFile(file) as archive:
        expected = [archive.read(name) for name in archive.namelist()]

    found = read(file.getvalue(), "zip")

    assert [member.data for member in found] == expected
    assert [member.name for member in found] == ["a.txt", "b/c.bin", "\\xfc"]
    assert not [member for member in found if member.faults]


def test_a_zip64_is_read():
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w") as archive,
        archive.open("a", "w", force_zip64=True) as member,
    ):
        member.write(b"data")

    assert [member.data for member in read(file.getvalue(), "zip")] == [b"data"]


def test_members_of_a_tar_are_read():
    [member] = read(tarred(b"data"), "tar")

    assert (member.name, member.data) == ("pickle", b"data")


def test_a_bomb_is_named_and_takes_little_memory():
    bomb = zipped(bytes(48 << 20), "zeros", zipfile.ZIP_DEFLATED)
    tracemalloc.start()

    found = codes(bomb, "zip")

    assert tracemalloc.get_traced_memory()[1] < 8 * MAX_DATA
    tracemalloc.stop()
    assert found == {"ARCHIVE_BOMB"}


def test_a_stream_that_unpacks_to_very_much_is_named():
    assert codes(gzip.compress(bytes(2 * MAX_DATA)), "gzip") == {"ARCHIVE_BOMB"}


def test_a_directory_that_claims_much_is_not_believed():
    data = bytearray(zipped(b"x"))
    at = data.rfind(b"PK\x05\x06")
    data[at + 12 : at + 16] = struct.pack("<I", 2**31)

    assert codes(bytes(data), "zip") == {"ARCHIVE_TRICK"}


def test_two_names_for_one_member_are_told():
    data = zipped(b"x", "harmless")
    at = data.find(b"harmless")

    assert codes(data[:at] + b"harmful!" + data[at + 8 :], "zip") == {"ARCHIVE_TRICK"}


def test_a_member_that_is_not_there_is_told():
    data = zipped(b"x")
    at = data.rfind(b"PK\x01\x02")

    assert "ARCHIVE_TRICK" in codes(data[: at + 42] + b"\xff\xff\xff\x0f" + data[at + 46 :], "zip")


def test_a_method_that_is_not_known_is_told():
    data = bytearray(zipped(b"x"))
    data[data.rfind(b"PK\x01\x02") + 10] = 99

    assert codes(bytes(data), "zip") == {"ARCHIVE_UNREAD"}


def test_many_members_are_not_all_looked_at():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(MAX_MEMBERS + 1):
            archive.writestr(str(number), b"")

    assert codes(file.getvalue(), "zip") == {"SCAN_LIMIT"}


@pytest.mark.parametrize("cut", [4, 30, 60, 100])
def test_a_zip_that_is_cut_off_is_told(cut):
    assert codes(zipped(b"x" * 200)[:cut], "zip") == {"ARCHIVE_TRICK"}


def test_a_stream_that_breaks_gives_what_came_before():
    packed = bytearray(zlib.compress(b"begin" + bytes(range(256)) * 400))
    packed[-4:] = b"oops"

    [member] = read(bytes(packed), "zlib")

    assert {code for code, _ in member.faults} == {"ARCHIVE_TRICK"}
    assert read(zlib.compress(b"begin"), "zlib")[0].faults == ()


def test_an_archive_of_torch_is_read(tmp_path):
    """It has the records of a large archive, whatever its size."""
    import torch

    torch.save({"w": torch.ones(1)}, tmp_path / "x.pt")

    found = read((tmp_path / "x.pt").read_bytes(), "zip")

    assert "x/data.pkl" in [member.name for member in found]
    assert all(member.data for member in found)


def test_bytes_between_members_and_end_hide_nothing():
    """Some readers count back from the end and fail; those that believe the offset find everything."""
    data = zipped(b"x", "a.txt")
    end = data.rfind(b"PK\x05\x06")

    assert [member.name for member in read(data[:end] + b"junk" + data[end:], "zip")] == ["a.txt"]


def test_directory_that_is_nowhere_is_a_fault():
    data = bytearray(zipped(b"x", "a.txt"))
    end = data.rfind(b"PK\x05\x06")
    data[end + 16 : end + 20] = b"\xff\xff\xff\x7f"
    data[end - 10 : end] = b""

    assert codes(bytes(data), "zip") == {"ARCHIVE_TRICK"}
