"""What the children of the server do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from crash.writes import Watch


def reuselib(arguments: Sequence[str], watch: Watch) -> int:
    """The command line, as it is, with a checkpoint after each step, and fewer calls to take times by."""
    from reuselib.cli import main
    from reuselib.derivation.saving import Saving
    from reuselib.lineage import disk
    from reuselib.measure import latency

    latency.STANDARD = latency.Protocol(seconds=0.01, rounds=3, warm_up=1, attempts=1)
    disk.exchange = watch.exchange(disk.exchange)
    Saving.of = classmethod(lambda cls, told: cls(told.resume, 0.0, told.keep_checkpoints))  # type: ignore[method-assign]
    return main(list(arguments))


def build(arguments: Sequence[str], watch: Watch) -> int:
    """Base and rows."""
    from pathlib import Path

    from crash.world import build

    build(Path(arguments[0]))
    return 0


def trainer(arguments: Sequence[str], watch: Watch) -> int:
    """The same training by other means."""
    from pathlib import Path

    from crash.trainer import work

    return work(Path(arguments[0]))


WORKS: Mapping[str, Callable[[Sequence[str], Watch], int]] = {
    "reuselib": reuselib,
    "build": build,
    "trainer": trainer,
}
