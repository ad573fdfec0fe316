from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from reuselib.lineage.sniff import unsafe_format


def zip_of(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return data.getvalue()


def npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        *((f"config.json{p}", pickle.dumps({}, protocol=p), "pickle") for p in range(2, 6)),
        ("vocab.txt", zip_of("archive/data.pkl"), "zip archive with 'archive/data.pkl'"),
        ("x.npz", zip_of("x.zip"), "zip archive with"),
        ("x.json", b"PK\x03\x04broken", "cannot be read"),
        ("x.txt", b"7z\xbc\xaf\x27\x1crest", "7z"),
        ("x.txt", b"\x1f\x8brest", "gzip"),
        ("x.npy", npy(np.array([{}], dtype=object)), "objects"),
        ("pytorch_model.bin", pickle.dumps({}, protocol=0), "unpickled"),
        ("modeling.py", b"", "code"),
        ("libx.so", b"", "code"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_could_run_is_recognised(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)

    assert words in unsafe_format(tmp_path / name)


def test_torch_file_is_recognised_under_any_name(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "tokenizer.json")

    assert "data.pkl" in unsafe_format(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", b"{}"),
        ("empty.txt", b""),
        ("x.npy", npy(np.ones(3))),
        ("x.zip", zip_of("a.txt")),
        ("spiece.model", b"\x0a\x0e\x0a"),
        ("model.safetensors", b"\x80\x00\x00\x00\x00\x00\x00\x00{"),
    ],
)
def test_ordinary_files_are_not(tmp_path: Path, name, data):
    (tmp_path / name).write_bytes(data)

    assert unsafe_format(tmp_path / name) == ""
