from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib

import numpy as np
import pytest
from safetensors.numpy import save

from reuselib.scanning.formats import START, format_of, misnamed
from scanning.payloads import old_tarred, tarred, zipped


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


CASES = {
    "safetensors": save({"a": np.zeros(3, np.float32)}),
    "gguf": b"GGUF\x03\x00\x00\x00",
    "zip": zipped(b"x"),
    "tar": tarred(b"x"),
    "gzip": gzip.compress(b"x"),
    "bzip2": bz2.compress(b"x"),
    "xz": lzma.compress(b"x"),
    "zlib": zlib.compress(b"x"),
    "npy": array(),
    "elf": b"\x7fELF\x02\x01",
    "pe": b"MZ\x90\x00",
    "script": b"#!/bin/sh\n",
    "json": b'{"a": 1}',
    "text": "wörter\n".encode(),
    "empty": b"",
    "unknown": bytes(range(200, 256)) * 3,
}


@pytest.mark.parametrize("kind", CASES)
def test_a_format_is_known_by_its_content(kind):
    data = CASES[kind]

    assert format_of(data[:START], len(data), "whatever.txt") == kind


def test_an_old_tar_is_known_by_its_checksum():
    data = old_tarred(b"x")

    assert format_of(data[:START], len(data)) == "tar"
    assert format_of(bytes(1) + data[1:START], len(data)) != "tar"


def test_a_vocabulary_is_no_json():
    assert format_of(b"[PAD]\n[UNK]\n", 12) == "text"


def test_text_that_is_cut_within_a_character_is_text():
    data = b"a" + "é".encode() * START

    assert format_of(data[:START], len(data)) == "text"


@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [
        ("a.json", "json", False),
        ("a.json", "zip", True),
        ("a.safetensors", "text", True),
        ("vocab.txt", "json", False),
        ("a.model", "unknown", False),
    ],
)
def test_a_suffix_is_held_against_the_content(name, kind, wrong):
    assert misnamed(name, kind) is wrong
