"""Files written a tensor at a time, against the format's own writer."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reuselib.errors import LawBroken, StoreError
from reuselib.lineage.layout import Layout, write_laid_out
from reuselib.lineage.tensors import dtype_codes

METADATA = {"é": 'a "quoted" \\ text'}
"""A single entry: the format's own writer puts several in an order that changes from run to run."""


def every_type() -> dict[str, torch.Tensor]:
    found = {
        f"t.{number % 3}.{code}": torch.arange(number + 1).to(dtype)
        for number, (dtype, code) in enumerate(dtype_codes().items())
    }
    more = {'odd "name"\n\x01é\u2028': torch.zeros(2, 0), "scalar": torch.tensor(2.5)}
    return {**found, **more, "matrix": torch.randn(3, 4), "a": torch.ones(5)}


def write(path: Path, tensors, given=None, aliases=None, metadata=METADATA) -> bytes:
    layout = Layout.of(path, {n: t.to("meta") for n, t in tensors.items()}, metadata)
    given = reversed([*tensors.items()]) if given is None else given
    write_laid_out([layout], given, aliases=aliases or {})
    return path.read_bytes()


@pytest.mark.parametrize("metadata", [METADATA, {}], ids=["metadata", "none"])
def test_a_file_is_the_one_that_safetensors_writes(tmp_path, metadata):
    tensors = every_type()
    save_file(tensors, tmp_path / "theirs.safetensors", metadata=metadata or None)

    ours = write(tmp_path / "ours.safetensors", tensors, metadata=metadata)

    assert ours == (tmp_path / "theirs.safetensors").read_bytes()


def test_strided_tensors_are_written_in_order(tmp_path):
    value = torch.arange(6.0).reshape(2, 3)
    save_file({"a": value.T.contiguous()}, tmp_path / "theirs.safetensors")

    ours = write(tmp_path / "ours.safetensors", {"a": value.T}, metadata={})

    assert ours == (tmp_path / "theirs.safetensors").read_bytes()


def test_a_tensor_may_come_under_another_name(tmp_path):
    value = {"a": torch.ones(2)}

    plain = write(tmp_path / "a.safetensors", value)
    given = [("b", value["a"]), ("left out", torch.zeros(9))]
    aliases = {"b": "a", "left out": None}

    assert write(tmp_path / "b.safetensors", value, given, aliases) == plain


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "a is missing"),
        ([("a", torch.ones(2)), ("a", torch.ones(2))], "a is there twice"),
        ([("a", torch.ones(2)), ("b", torch.ones(2))], "b has no place"),
        ([("a", torch.ones(3))], r"\[3\], but the network says"),
        ([("a", torch.ones(2).double())], "float64"),
    ],
)
def test_what_is_not_as_it_was_said_breaks_the_law(tmp_path, given, why):
    with pytest.raises(LawBroken, match=why):
        write(tmp_path / "a.safetensors", {"a": torch.ones(2)}, given)


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 90, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(StoreError, match=r"0\.00 GB free"):
        write(tmp_path / "a.safetensors", {"a": torch.ones(2)})

    assert not [*tmp_path.iterdir()]
