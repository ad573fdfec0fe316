"""What is done to commands: which one is killed when, which write fails, where the power is cut."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crash.cuts import Cut
from crash.server import Job
from crash.world import Place, Reference
from crash.writes import Operation

ERRORS = ("ENOSPC", "EIO", "EROFS", "short")
TWICE = 0.2
"""Of the kills: what follows is killed too."""
ALONE = 5
"""One in so many pairs is not disturbed."""
SLOWER = 1.5
"""Times as long as alone, of which a pair takes a moment."""
COMMANDS = {"run": "run", "gc": "gc", "unpack": "run", "limit": "limit"}
"""What is disturbed in each scene in which nothing runs beside it."""
KILLS = ("moment", "point", "unpack", "pair")
"""Kinds of attempts that are kills."""


@dataclass(frozen=True)
class Attempt:
    """What is done to one command."""

    kind: str
    """`moment`, `point`, `fault` or `cut`; `unpack` for kills while children are packed or unpacked, `pair` for kills of
    one of two runs at once."""
    number: int
    scene: str = "run"
    """Where it begins, see `bench.Bench.scenes`."""
    command: str = "run"
    """What is disturbed, see `world.Place.command`."""
    beside: str = ""
    """What runs at the same time, if anything does."""
    fraction: float | None = None
    """Of the time of an undisturbed command, when it is killed."""
    at: int = 0
    """Number of the operation that goes wrong."""
    how: str = ""
    """What happens there, see `writes.Mishap`; empty: nothing does."""
    site: str = ""
    """Which line of the product does that, when undisturbed."""
    cut: Cut | None = None
    """What the disk holds when the command begins."""
    second: float | None = None
    """Of that time, when what follows is killed; of a pair, when the other one is."""

    def job(self, place: Place, seconds: float) -> Job:
        """The command that is disturbed, which takes so many seconds otherwise."""
        return Job(
            arguments=place.command(self.command),
            watched=place.disk,
            mishap=(self.at, self.how) if self.how else None,
            kill_after=None if self.fraction is None else self.fraction * seconds,
        )

    def __str__(self) -> str:
        where = f"{self.how} at {self.at} ({self.site})" if self.how else "undisturbed"
        if self.fraction is not None:
            where = f"killed after {self.fraction:.3f} of the time"
        what = f"{self.command} beside {self.beside}" if self.beside else self.scene
        return f"{self.kind} {self.number}: {what}, {self.cut or where}"


@dataclass
class Tally:
    """What came of attempts of one kind."""

    tried: int = 0
    """Kills that were delivered, writes that failed, or power cuts."""
    recovered: int = 0
    """Runs that ended as if nothing had happened."""
    resumed: int = 0
    """Of these, those that went on from a checkpoint."""
    lost: int = 0
    """Children that were there, and were whole no longer."""
    corrupt: int = 0
    """Checkpoints that were accepted although they were corrupt."""
    refused: int = 0
    """Runs that ended in an error, told in words; the others went on."""
    waited: int = 0
    """Runs that shared a child which another one made meanwhile."""
    problems: list[str] = field(default_factory=list[str])

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How many of each kind."""

    kills: int
    unpacks: int
    pairs: int
    faults: int


def schedule(numbers: Numbers, seed: int, scenes: Mapping[str, Reference]) -> list[Attempt]:
    """Half of the kills at random moments, half at writes spread over the command; failing writes line by line."""
    draw = random.Random(seed)
    found = _kills(numbers.kills, draw, scenes["run"].log)
    found += [_unpack(number, numbers.unpacks, draw, scenes) for number in range(numbers.unpacks)]
    found += [
        _pair(number, numbers.pairs, draw, scenes["run"].log) for number in range(numbers.pairs)
    ]
    return found + _faults(numbers.faults, draw, scenes)


def _kills(kills: int, draw: random.Random, log: Sequence[Operation]) -> list[Attempt]:
    found: list[Attempt] = []
    left = kills
    while left > 0:
        number = len(found)
        second = draw.random() if left > 1 and draw.random() < TWICE else None
        left -= 1 if second is None else 2
        if number % 2:
            point = _point((number + draw.random()) / kills, draw, log)
            found.append(Attempt("point", number, second=second, **point))
        else:
            found.append(Attempt("moment", number, fraction=draw.random(), second=second))
    return found


def _unpack(
    number: int, total: int, draw: random.Random, scenes: Mapping[str, Reference]
) -> Attempt:
    """In turns packing, unpacking, removing; of each, one at a moment for two at writes."""
    scene = ("gc", "unpack", "limit")[number % 3]
    second = draw.random() if draw.random() < TWICE else None
    common: dict[str, Any] = {"scene": scene, "command": COMMANDS[scene], "second": second}
    if number // 3 % 3 == 2:
        return Attempt("unpack", number, fraction=draw.random(), **common)
    point = _point((number + draw.random()) / total, draw, scenes[scene].log)
    return Attempt("unpack", number, **common, **point)


def _pair(number: int, total: int, draw: random.Random, log: Sequence[Operation]) -> Attempt:
    """In turns the same command twice, and two that share a prefix; of the kills one at a moment for two at writes."""
    command, beside = (("run", "run"), ("run", "other"), ("run", "run"), ("other", "run"))[
        number % 4
    ]
    scene = "run" if command == beside else "pair"
    common: dict[str, Any] = {"scene": scene, "command": command, "beside": beside}
    if number % ALONE == ALONE - 1:
        return Attempt("pair", number, **common)
    second = draw.random() * SLOWER if draw.random() < TWICE else None
    if number % 3 == 2:
        return Attempt("pair", number, fraction=draw.random() * SLOWER, second=second, **common)
    reach = len(log) if command == "run" else len(log) // 2  # the other one takes fewer
    point = _point((number + draw.random()) / total, draw, log[:reach])
    return Attempt("pair", number, second=second, **common, **point)


def _point(where: float, draw: random.Random, log: Sequence[Operation]) -> dict[str, Any]:
    at = int(where * len(log)) % len(log)
    return {"at": at, "how": draw.choice(("kill", "kill-after")), "site": _site(log[at])}


def _faults(number: int, draw: random.Random, scenes: Mapping[str, Reference]) -> list[Attempt]:
    points = [(scene, at) for scene in COMMANDS for at in fault_points(scenes[scene].log)]
    chosen = points if len(points) <= number else draw.sample(points, number)
    return [
        Attempt(
            "fault",
            count,
            scene=scene,
            command=COMMANDS[scene],
            at=at,
            how=_error(scenes[scene].log[at], count + draw.randrange(4)),
            site=_site(scenes[scene].log[at]),
        )
        for count, (scene, at) in enumerate(sorted(chosen))
    ]


def fault_points(log: Sequence[Operation]) -> list[int]:
    """The first and the last time that each line of the product did each thing in each room of the store."""
    first: dict[tuple[str, str, str], int] = {}
    last: dict[tuple[str, str, str], int] = {}
    for number, each in enumerate(log):
        point = (each.site, each.kind, _room(each))
        first.setdefault(point, number)
        last[point] = number
    return sorted({*first.values(), *last.values()})


def renamings(log: Sequence[Operation]) -> list[int]:
    """The first and the last time that each line of the product gave something its name, in each room."""
    return [at for at in fault_points(log) if log[at].kind in ("rename", "exchange")]


def _room(operation: Operation) -> str:
    """Such as `store/models`: one line may name things in several."""
    return "/".join((operation.other or operation.path).split("/")[:2])


def _site(operation: Operation) -> str:
    return f"{operation.kind} {operation.path.rpartition('/')[2]} by {operation.site}"


def _error(operation: Operation, number: int) -> str:
    return ERRORS[number % (4 if operation.kind == "write" else 3)]
