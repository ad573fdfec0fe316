"""Kill runs, break their writes and cut their power: `python tests/crash/run.py --kills 200 --seed 0`.

A tiny recipe of four steps runs again and again, each time in a process of its own that is killed at a random moment or
at a write, or whose writes fail. Whatever happened: the store holds whole children only, no checkpoint that is corrupt
counts as valid, the output is the old model or the new one, and the same command again ends in the digests of a run
that nobody disturbed. Exit code 1: something else happened; it is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from uuid import uuid4

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from crash import trainer
from crash.cuts import Cut, cuts
from crash.disks import write_tree
from crash.recording import read_recording
from crash.server import Ended, Server
from crash.world import OLD, Place, Reference, corrupt_checkpoints, faults
from crash.writes import Operation

ERRORS = ("ENOSPC", "EIO", "EROFS", "short")
TWICE = 0.2
"""Of the kills: the run that recovers is killed too."""


@dataclass(frozen=True)
class Attempt:
    """What is done to one run."""

    kind: str
    """`moment`, `point`, `fault` or `cut`."""
    number: int
    fraction: float = 0.0
    """Of the time of an undisturbed run, when it is killed."""
    at: int = 0
    """Number of the operation that goes wrong."""
    how: str = ""
    site: str = ""
    """Which line of the product does that, in an undisturbed run."""
    cut: Cut | None = None
    """What the disk holds when the run begins."""
    second: float | None = None
    """Of that time, when the run that recovers is killed."""

    def __str__(self) -> str:
        where = (
            f"{self.fraction:.3f} of the time"
            if self.kind == "moment"
            else f"{self.how} at {self.at} ({self.site})"
        )
        return f"{self.kind} {self.number}: {self.cut or where}"


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
    problems: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Bench:
    """Where attempts are made: a folder, and a few servers."""

    folder: Path
    servers: Queue[Server]
    reference: Reference

    @classmethod
    @contextmanager
    def open(cls, folder: Path, num_servers: int) -> Iterator[Bench]:
        """Make base and rows, and see what an undisturbed run makes."""
        with ExitStack() as stack:
            servers = [
                stack.enter_context(Server(folder / f"server-{number}"))
                for number in range(num_servers)
            ]
            first = servers[0]
            _must(first.run([str(folder)], folder / "nothing", work="build"))
            before = Place(folder / "before")
            before.prepare(recipe=OLD)
            _must(first.run(before.command, before.disk))
            place = Place(folder / "undisturbed")
            place.prepare(old=before.output)
            _must(first.run(place.command, place.disk))
            for each in servers:
                if each is not first:
                    shutil.copy(first.folder / "modules.json", each.folder)
                each.restart()
            shutil.rmtree(place.folder)
            place.prepare(old=before.output)
            ended = _must(first.run(place.command, place.disk, record=folder / "recording"))
            log = read_recording(folder / "recording")
            reference = Reference.of(place, before.output, ended.seconds, log)
            wrong = faults(place, reference, finished=True)
            assert not wrong, wrong
            shutil.rmtree(place.folder)
            queue: Queue[Server] = Queue()
            for each in servers:
                queue.put(each)
            yield cls(folder, queue, reference)

    def attempt(self, attempt: Attempt) -> Tally:
        """Disturb a run, look at what is there, run again, look again."""
        server = self.servers.get()
        place = Place(self.folder / uuid4().hex)
        try:
            return _attempt(attempt, server, place, self)
        except TimeoutError as error:
            return Tally(1, problems=[f"{attempt}: {error}"])
        finally:
            self.servers.put(server)
            shutil.rmtree(place.folder, ignore_errors=True)


def _attempt(attempt: Attempt, server: Server, place: Place, bench: Bench) -> Tally:
    reference, tally, problems = bench.reference, Tally(), list[str]()
    place.prepare(old=None if attempt.cut else bench.folder / "before/disk/output")
    if attempt.cut is not None:
        write_tree(attempt.cut.tree, place.disk)
        tally.tried = 1
    else:
        ended = _disturb(attempt, server, place, reference)
        # a run may take fewer operations than the undisturbed one: then nothing went wrong
        reached = ended.num_operations is None or ended.num_operations > attempt.at
        failed = attempt.kind == "fault" and reached
        tally.tried += ended.code is None or failed
        if failed:
            problems += _unexplained(ended)
            tally.refused += ended.code != 0
    problems += _look(place, reference, tally)
    if attempt.second is not None:
        moment = attempt.second * reference.seconds
        tally.tried += server.run(place.command, place.disk, kill_after=moment).code is None
        problems += _look(place, reference, tally)
    again = server.run(place.command, place.disk)
    if again.code != 0:
        problems.append(f"the next run ended with {again.code}: {again.said[-600:]}")
    wrong = faults(place, reference, finished=True)
    tally.lost += sum(each.startswith("child ") for each in wrong)
    problems += wrong
    if not problems:
        tally.recovered = tally.tried
        tally.resumed = int("resumed after step" in again.said)
    tally.problems = [f"{attempt}: {each}" for each in problems]
    return tally


def _disturb(attempt: Attempt, server: Server, place: Place, reference: Reference) -> Ended:
    if attempt.kind == "moment":
        moment = attempt.fraction * reference.seconds
        return server.run(place.command, place.disk, kill_after=moment)
    return server.run(place.command, place.disk, mishap=(attempt.at, attempt.how))


def _look(place: Place, reference: Reference, tally: Tally) -> list[str]:
    wrong, corrupt = faults(place, reference), corrupt_checkpoints(place, reference)
    tally.lost += sum(each.startswith("child ") for each in wrong)
    tally.corrupt += len(corrupt)
    return [*wrong, *corrupt]


def _unexplained(ended: Ended) -> list[str]:
    """A failed write must end in success, or in an error that says what to do."""
    told = "\nfix: " in ended.said and "This is a bug" not in ended.said
    if ended.code == 0 or (ended.code in (3, 5) and told and "Traceback" not in ended.said):
        return []
    return [f"no words for it, code {ended.code}: {ended.said[-600:]}"]


def _must(ended: Ended) -> Ended:
    if ended.code != 0:
        raise RuntimeError(f"an undisturbed run failed: {ended.said[-3000:]}")
    return ended


def schedule(kills: int, num_faults: int, seed: int, reference: Reference) -> list[Attempt]:
    """Half of the kills at random moments, half at writes spread over the run; failing writes line by line."""
    draw, log = random.Random(seed), reference.log
    found: list[Attempt] = []
    left = kills
    while left > 0:
        number = len(found)
        second = draw.random() if left > 1 and draw.random() < TWICE else None
        left -= 1 if second is None else 2
        if number % 2:
            at = int((number + draw.random()) / kills * len(log)) % len(log)
            how = draw.choice(("kill", "kill-after"))
            found.append(
                Attempt("point", number, at=at, how=how, site=_site(log[at]), second=second)
            )
        else:
            found.append(Attempt("moment", number, fraction=draw.random(), second=second))
    points = fault_points(log)
    chosen = points if len(points) <= num_faults else draw.sample(points, num_faults)
    found += [
        Attempt(
            "fault",
            number,
            at=at,
            how=_error(log[at], number + draw.randrange(4)),
            site=_site(log[at]),
        )
        for number, at in enumerate(sorted(chosen))
    ]
    return found


def fault_points(log: Sequence[Operation]) -> list[int]:
    """The first and the last time that each line of the product did each thing."""
    first: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], int] = {}
    for number, each in enumerate(log):
        first.setdefault((each.site, each.kind), number)
        last[each.site, each.kind] = number
    return sorted({*first.values(), *last.values()})


def _site(operation: Operation) -> str:
    return f"{operation.kind} {operation.path.rpartition('/')[2]} by {operation.site}"


def _error(operation: Operation, number: int) -> str:
    return ERRORS[number % (4 if operation.kind == "write" else 3)]


def carry_out(
    bench: Bench,
    attempts: Sequence[Attempt],
    tell: Callable[[Attempt, Tally], None],
    until: float = float("inf"),
) -> dict[str, Tally]:
    """Make attempts, one on each server at a time; tallies by kind. None begins after `until`, by the steady clock."""
    tallies: dict[str, Tally] = {}

    def make(attempt: Attempt) -> Tally:
        return bench.attempt(attempt) if time.monotonic() < until else Tally()

    with ThreadPoolExecutor(bench.servers.qsize()) as pool:
        for attempt, tally in zip(attempts, pool.map(make, attempts), strict=True):
            tallies.setdefault(attempt.kind, Tally()).add(tally)
            tell(attempt, tally)
    return tallies


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all of it; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=60, help="writes that fail")
    parser.add_argument("--cuts", type=int, default=40, help="power cuts after which a run follows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--servers", type=int, default=2, help="runs at once")
    parser.add_argument("--minutes", type=float, default=30, help="after which nothing is begun")
    parser.add_argument(
        "--trainer",
        type=int,
        default=0,
        help="so many kills of transformers' Trainer, to compare with",
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="crash-") as folder,
        Bench.open(Path(folder), options.servers) as bench,
    ):
        reference = bench.reference
        say(
            f"undisturbed: {reference.seconds:.1f} s, {len(reference.log)} operations, "
            f"{len(reference.children)} children, {len(reference.checkpoints)} checkpoints"
        )
        seen, chosen = cuts(reference, options.cuts, options.seed)
        attempts = schedule(options.kills, options.faults, options.seed, reference)
        attempts += [Attempt("cut", number, cut=cut) for number, cut in enumerate(chosen)]
        tallies = carry_out(bench, attempts, _tell, started + 60 * options.minutes)
    for problem in seen.problems[:20]:
        say(f"  {problem}")
    say(
        f"{'':<10}{'tried':>7}{'recovered':>11}{'resumed':>9}{'refused':>9}{'lost':>6}{'corrupt':>9}{'wrong':>7}"
    )
    for kind, tally in tallies.items():
        say(
            f"{kind:<10}{tally.tried:>7}{tally.recovered:>11}{tally.resumed:>9}{tally.refused:>9}"
            f"{tally.lost:>6}{tally.corrupt:>9}{len(tally.problems):>7}"
        )
    kills = [tallies[kind] for kind in ("moment", "point") if kind in tallies]
    total = {
        "kills tried": sum(each.tried for each in kills),
        "runs recovered": sum(each.recovered for each in kills),
        "resumed from a checkpoint": sum(each.resumed for each in kills),
        "children lost": sum(each.lost for each in tallies.values()) + seen.lost,
        "corrupt accepted": sum(each.corrupt for each in tallies.values()) + seen.corrupt,
        "states of the disk after a power cut": seen.num_states,
    }
    say(", ".join(f"{name}: {number}" for name, number in total.items()))
    told = {"total": total, **{kind: vars(tally) for kind, tally in tallies.items()}}
    told["cuts looked at"] = vars(seen)
    if options.trainer:
        told["trainer"] = trainer.compare(options.trainer, options.seed)
        say(f"Trainer: {trainer.in_words(told['trainer'])}")
    say(f"{time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    failed = seen.problems or any(each.problems for each in tallies.values())
    return 1 if failed or total["kills tried"] < options.kills * 0.9 else 0


def _tell(attempt: Attempt, tally: Tally) -> None:
    for problem in tally.problems:
        say(f"  {problem}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
