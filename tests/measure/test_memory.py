from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from reuselib.measure import memory
from reuselib.measure.memory import (
    KEPT_KERNELS,
    give_back,
    keep_few_kernels,
    num_kept_kernels,
    peak_memory,
    resident,
)

MEGABYTES = 1 << 20


def held(num_bytes: int) -> int:
    with peak_memory() as peak:
        data = bytearray(num_bytes)
        data[:: 1 << 12] = b"x" * len(data[:: 1 << 12])  # touched, so that it is resident
        del data
    return peak.num_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_what_was_held_within_counts_and_what_was_held_before_does_not():
    high = held(300 * MEGABYTES)
    low = held(MEGABYTES)

    assert high - low > 200 * MEGABYTES


def test_where_a_peak_cannot_be_forgotten_that_of_the_process_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_RESET", tmp_path / "nowhere" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nowhere" / "status")

    assert held(MEGABYTES) > 10 * MEGABYTES


def test_it_is_known_even_if_the_block_fails():
    with pytest.raises(ValueError, match="oh"), peak_memory() as peak:
        raise ValueError("oh")

    assert peak.num_bytes > 0


@pytest.mark.skipif(not hasattr(os, "confstr") or sys.platform != "linux", reason="glibc only")
def test_what_lies_between_blocks_in_use_is_given_back():
    blocks = [torch.ones(2**16) for _ in range(800)]  # 200 MB from the heap
    kept = blocks[::8]  # so that it cannot just shrink
    del blocks
    before = resident()

    give_back()

    assert before - resident() > 100 * MEGABYTES
    assert all(bool((each == 1).all()) for each in kept)


def test_how_many_kernels_to_keep_is_left_to_the_user(monkeypatch):
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    monkeypatch.setenv(names[0], "17")
    monkeypatch.delenv(names[1], raising=False)

    keep_few_kernels()

    assert [os.environ.pop(name) for name in names] == ["17", str(KEPT_KERNELS)]
    assert num_kept_kernels() == KEPT_KERNELS


MANY_SHAPES = """
import sys, torch
from reuselib.measure.memory import give_back, keep_few_kernels, resident
import reuselib.measure.memory as memory
memory.KEPT_KERNELS = int(sys.argv[1])
keep_few_kernels()
torch.set_num_threads(1)
layer = torch.nn.Linear(384, 1536)
def compute(rows):
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.ones(rows, 384)).sum().backward()
compute(7)
give_back()
before = resident()
for rows in range(8, 108):
    compute(rows)
give_back()
print(resident() - before)
"""


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="needs a processor that multiplies bf16"
)
def test_fewer_kernels_take_less_memory():
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-c", MANY_SHAPES, number],
                check=True,
                capture_output=True,
                text=True,
                timeout=300,
            ).stdout
        )
        for number in ("16", "1024")
    )

    # three products for each of 100 shapes, of about 450 KB
    assert many > 60 * MEGABYTES
    assert few < 0.3 * many
