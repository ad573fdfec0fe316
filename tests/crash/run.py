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
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from crash import trainer
from crash.attempts import COMMANDS, KILLS, Attempt, Numbers, Tally, renamings, schedule
from crash.bench import Bench
from crash.cuts import Seen, cuts

COLUMNS = ("tried", "recovered", "resumed", "refused", "waited", "lost", "corrupt")


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
    parser.add_argument(
        "--unpacks", type=int, default=30, help="kills while children are packed or unpacked"
    )
    parser.add_argument(
        "--pairs", type=int, default=20, help="two runs at once, one of which is killed in most"
    )
    parser.add_argument("--faults", type=int, default=70, help="writes that fail")
    parser.add_argument(
        "--cuts", type=int, default=40, help="power cuts after which commands follow"
    )
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
        for name, each in bench.scenes.items():
            say(
                f"{name} undisturbed: {each.seconds:.1f} s, {len(each.log)} operations, "
                f"{len(each.children)} children, {len(each.checkpoints)} checkpoints"
            )
        numbers = Numbers(
            kills=options.kills,
            unpacks=options.unpacks,
            pairs=options.pairs,
            faults=options.faults,
        )
        seen, after_cuts = look_at_cuts(bench, options.cuts, options.seed)
        attempts = [*schedule(numbers, options.seed, bench.scenes), *after_cuts]
        tallies = carry_out(bench, attempts, _tell, started + 60 * options.minutes)
    for problem in seen.problems[:20]:
        say(f"  {problem}")
    say("".join([f"{'':<10}", *(f"{each:>11}" for each in (*COLUMNS, "wrong"))]))
    for kind, tally in tallies.items():
        figures = [*(getattr(tally, each) for each in COLUMNS), len(tally.problems)]
        say("".join([f"{kind:<10}", *(f"{each:>11}" for each in figures)]))
    kills = [tallies[kind] for kind in KILLS if kind in tallies]
    total: dict[str, Any] = {
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
    return 1 if failed or total["kills tried"] < (options.kills + options.unpacks) * 0.9 else 0


def look_at_cuts(bench: Bench, number: int, seed: int) -> tuple[Seen, list[Attempt]]:
    """Power cuts in each scene: all are looked at, and commands follow after `number` of those of a run and a quarter as
    many of each other. As many commands are killed when something has just got its name, and the power goes later."""
    seen, attempts, draw = Seen(), list[Attempt](), random.Random(seed)
    for scene in COMMANDS:
        reference = bench.scenes[scene]
        share = number if scene == "run" else number // 4
        of_scene, chosen = cuts(reference, share, seed)
        seen.add(of_scene)
        attempts += [
            Attempt("cut", count, scene=scene, cut=cut) for count, cut in enumerate(chosen)
        ]
        points = renamings(reference.log)
        for at in sorted(draw.sample(points, min(len(points), number // 4))):
            later, _ = cuts(bench.killed(scene, at), 0, seed, begin=at + 1)
            what = f"{scene} killed after {at}, then"
            later.problems = [f"{what} {problem}" for problem in later.problems]
            seen.add(later)
    return seen, attempts


def _tell(attempt: Attempt, tally: Tally) -> None:
    for problem in tally.problems:
        say(f"  {problem}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
