"""Processes stood for by threads: what they say to one another does not depend on which of the two they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from reuselib.errors import DataError, PeerFailed, TrainingError
from reuselib.training import world as worlds
from reuselib.training.world import World, alone, join, place, together


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch):
    monkeypatch.setattr(worlds, "LINGER", 1.0)
    monkeypatch.setattr(worlds, "ARRIVAL", 5.0)


def meet(*parts: Callable[[World], object]) -> list[object]:
    """Let each part be done by one process of a world; what they return or raise."""
    import torch.distributed as dist

    store = dist.HashStore()
    results: list[object] = [None] * len(parts)

    def work(rank: int) -> None:
        world = World(rank, len(parts), store)
        try:
            with world.sharing_fate():
                results[rank] = parts[rank](world)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked at
            results[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return results


def test_a_world_of_one_talks_to_itself_and_loads_nothing():
    world = World()

    world.barrier()
    world.part()

    assert world.main
    assert world.broadcast({"a": 1}) == {"a": 1}
    assert join() == world


def test_everyone_hears_what_the_first_says_in_order():
    def say(world):
        return [world.broadcast({"number": number}) for number in range(3)]

    def hear(world):
        return [world.broadcast() for _ in range(3)]

    said, *heard = meet(say, hear, hear)

    assert heard == [said, said]
    assert said == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_nobody_leaves_a_meeting_before_all_are_there():
    def early(world):
        world.barrier()
        return time.monotonic()

    def late(world):
        time.sleep(0.5)
        arrived = time.monotonic()
        world.barrier()
        return arrived

    left, also_left, arrived = meet(early, early, late)

    assert min(left, also_left) >= arrived  # type: ignore[type-var]


def test_the_first_processs_own_work_is_waited_for_longer_than_a_meeting(monkeypatch):
    monkeypatch.setattr(worlds, "ARRIVAL", 0.05)
    order = []

    def work(world):
        time.sleep(0.5)
        order.append("first")
        worlds.await_first(lambda: order.append("limited"))

    def wait(world):
        worlds.await_first(lambda: order.append("limited"))
        order.append("other")

    assert meet(work, wait) == [None, None]
    assert order == ["first", "other"]
    worlds.await_first(lambda: order.append("outside of a run"))
    assert order[-1] == "outside of a run"


def test_the_first_process_leaves_last():
    def slow(world):
        time.sleep(0.5)
        leaving = time.monotonic()
        world.part()
        return leaving

    def first(world):
        world.part()
        return time.monotonic()

    left, leaving = meet(first, slow)

    assert left >= leaving  # type: ignore[operator]


@pytest.mark.parametrize("waits", ["broadcast", "barrier"])
def test_a_failure_ends_the_waiting_of_the_others_with_its_words_and_code(waits):
    def fail(world):
        raise DataError("row 3 is empty", fix="fill it")

    def wait(world):
        getattr(world, waits)()

    error, *others = meet(fail, wait, wait)

    assert isinstance(error, DataError)
    for other in others:
        assert isinstance(other, PeerFailed)
        assert "process 0 failed: row 3 is empty" in other.what
        assert (other.code, other.told) == (3, True)


def test_the_first_process_hears_of_a_failure_too():
    def fail(world):
        raise KeyboardInterrupt

    def say(world):
        time.sleep(0.3)
        world.broadcast("go on")

    other, error = meet(say, fail)

    assert isinstance(error, KeyboardInterrupt)
    assert isinstance(other, PeerFailed)
    assert other.code == 130


def test_a_broken_connection_is_told_as_the_failure_of_another_process():
    """A collective call says no more than that the connection closed."""

    def cut(world):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]")

    def fail(world):
        raise DataError("row 3 is empty")

    one, _ = meet(cut, fail)
    alone_with_it, _ = meet(cut, lambda world: None)

    assert isinstance(one, PeerFailed)
    assert "row 3 is empty" in one.what
    assert isinstance(alone_with_it, PeerFailed)
    assert "without a word" in alone_with_it.what
    assert not alone_with_it.told


def test_who_never_comes_is_given_up(monkeypatch):
    monkeypatch.setattr(worlds, "ARRIVAL", 0.3)

    error, _ = meet(lambda world: world.barrier(), lambda world: None)

    assert isinstance(error, PeerFailed)
    assert "not all 2 processes" in error.what


def test_a_size_without_a_meeting_place_is_told_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(TrainingError, match="MASTER_ADDR, MASTER_PORT"):
        join()


class TestPlace:
    def test_rows_are_dealt_out_only_together(self, monkeypatch):
        import torch.distributed as dist

        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_rank", lambda: 1)
        monkeypatch.setattr(dist, "get_world_size", lambda: 3)

        with alone(World(1, 3)):
            by_itself = place()
            with together():
                shared = place()

        assert (by_itself, shared, place()) == ((0, 1), (1, 3), (1, 3))

    def test_the_one_that_works_has_all_cores(self, monkeypatch):
        import torch

        monkeypatch.setenv("REUSELIB_CORES", "3")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        before = torch.get_num_threads()

        with alone(World(0, 3)):
            working = torch.get_num_threads()
            with together():
                training = torch.get_num_threads()
        with alone(World(1, 3)):
            waiting = torch.get_num_threads()

        assert (working, training) == (3, 1)
        assert torch.get_num_threads() == waiting == before
