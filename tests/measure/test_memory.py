from __future__ import annotations

import sys

import pytest

from reuselib.measure import memory
from reuselib.measure.memory import peak_memory

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
