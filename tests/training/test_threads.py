from __future__ import annotations

import os

import pytest
import torch

from reuselib.training.threads import all_cores, num_cores


def test_all_cores_are_used_within_and_the_setting_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with all_cores() as threads:
            assert torch.get_num_threads() == threads == num_cores()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_processes_of_one_machine_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(num_cores()))

    with all_cores() as threads:
        assert threads == 1


def test_the_users_word_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()

    with all_cores() as threads:
        assert threads == before


def test_cores_are_those_this_process_may_use() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system does not tell")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
