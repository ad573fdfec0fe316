"""Give damaged inputs to every reader of strangers' bytes: `python tests/fuzz/run.py --inputs 20000 --seed 0`.

Each input must be accepted or refused with a `ReuseError`: no other exception, no endless loop (CPU time of each input
is bounded), and no memory beyond 300 MB, which a process of its own is not given. Exit code 1: something else happened;
the inputs that did it are printed, and kept with `--keep`.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from fuzz.targets import Target, targets
from reuselib.errors import IntegrityError, ReuseError

MAX_MEMORY = 300 * 10**6
MAX_CPU_SECONDS = 5.0
"""For one input. A reader that needs this long for a small file can be kept busy for ever with a large one."""


class Hang(BaseException):
    """An input took too long; no `except Exception` of a reader may swallow it."""


@dataclass
class Tally:
    """What one reader did."""

    name: str
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    slowest: float = 0.0
    """CPU seconds of one input."""

    @property
    def num_inputs(self) -> int:
        return self.accepted + self.refused.total() + len(self.failures)


def fuzz(target: Target, num_inputs: int, seed: int, folder: Path) -> Tally:
    """Read that many damaged inputs, in this process."""
    inputs = ((str(number), target.input(seed, number)) for number in range(num_inputs))
    return read(target, inputs, folder)


def read(target: Target, inputs: Iterable[tuple[str, bytes]], folder: Path) -> Tally:
    """Give inputs, each with a name, to a reader."""
    tally = Tally(target.name)
    previous = signal.signal(signal.SIGVTALRM, _interrupt)
    try:
        for number, data in inputs:
            start = time.process_time()
            signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_SECONDS)
            try:
                target.read(data, folder)
                tally.accepted += 1
            except ReuseError as error:
                tally.refused[
                    error.code if isinstance(error, IntegrityError) else type(error).__name__
                ] += 1
                if not str(error).strip():
                    tally.failures.append(_failure(number, data, "an error without a word"))
            except (Exception, Hang) as error:  # noqa: BLE001 - whatever it is, it is what we look for
                where = traceback.extract_tb(error.__traceback__)[-1]
                why = (
                    f"{type(error).__name__}: {error} at {Path(where.filename).name}:{where.lineno}"
                )
                tally.failures.append(_failure(number, data, why))
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            tally.slowest = max(tally.slowest, time.process_time() - start)
    finally:
        signal.signal(signal.SIGVTALRM, previous)
    return tally


def in_a_process(name: str, options: Sequence[str], num_inputs: int) -> tuple[Tally, float]:
    """The same in a process whose memory is bounded; return the tally and the most memory it held, in MB."""
    count = ("--inputs", str(num_inputs))
    command = [sys.executable, __file__, "--child", "--only", name, *count, *options]
    limit = 300 + num_inputs * 0.5
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Tally(name, failures=[{"why": f"no end within {limit:.0f} s"}]), 0.0
    if done.returncode:
        return Tally(name, failures=[{"why": f"the process died: {done.stderr[-800:]}"}]), 0.0
    found = json.loads(done.stdout)
    peak = found.pop("peak")
    tally = Tally(**{**found, "refused": Counter(found["refused"])})
    if peak > MAX_MEMORY:
        tally.failures.append({"why": f"{peak / 1e6:.0f} MB of memory"})
    return tally, peak / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all readers, or one; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=20_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--keep", type=Path, help="folder for inputs that were not handled")
    parser.add_argument("--small", action="store_true", help="leave out the large inputs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    chosen = [each for each in targets() if options.only in (None, each.name)]
    if not chosen:
        parser.error(
            f"no reader {options.only!r}; there are: {', '.join(t.name for t in targets())}"
        )
    if options.child:
        return _child(chosen[0], options.inputs, options.seed, large_too=not options.small)
    passed_on = ["--seed", str(options.seed), *(["--small"] if options.small else [])]
    shares = sum(each.share for each in chosen)
    failed = total = 0
    say(
        f"{'reader':<15}{'inputs':>8}{'accepted':>10}{'refused':>9}{'failed':>8}{'slowest':>10}{'MB':>6}  codes"
    )
    for each in chosen:
        num_inputs = -(-options.inputs * each.share // shares)
        tally, peak = in_a_process(each.name, passed_on, num_inputs)
        codes = ", ".join(f"{code} {count}" for code, count in tally.refused.most_common(5))
        say(
            f"{each.name:<15}{tally.num_inputs:>8}{tally.accepted:>10}{tally.refused.total():>9}"
            f"{len(tally.failures):>8}{tally.slowest:>9.2f}s{peak:>6.0f}  {codes}"
        )
        _tell(tally, options.keep)
        failed, total = failed + len(tally.failures), total + tally.num_inputs
    say(f"{total} inputs, {failed} not handled")
    return 1 if failed or total < options.inputs else 0


def _child(target: Target, num_inputs: int, seed: int, *, large_too: bool = True) -> int:
    # What the interpreter and its libraries have mapped already is not the input's doing.
    pages, resident = (int(each) for each in Path("/proc/self/statm").read_text().split()[:2])
    room = MAX_MEMORY + (pages - resident) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(target, num_inputs, seed, Path(folder))
        bombs = target.bombs.items() if large_too else ()
        large = read(target, ((name, make()) for name, make in bombs), Path(folder))
    tally.accepted += large.accepted
    tally.refused += large.refused
    tally.failures += large.failures
    tally.slowest = max(tally.slowest, large.slowest)
    # not `ru_maxrss`, which begins with what the process held that started this one
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    say(json.dumps({**vars(tally), "peak": peak}))
    return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _interrupt(*_: object) -> None:
    raise Hang(f"more than {MAX_CPU_SECONDS} s of CPU time")


def _failure(number: str, data: bytes, why: str) -> dict[str, str]:
    return {"why": why, "number": number, "input": data[:4000].decode("latin-1")}


def _tell(tally: Tally, keep: Path | None) -> None:
    for failure in tally.failures[:10]:
        say(f"  input {failure.get('number', '?')}: {failure['why']}")
        if text := failure.get("input"):
            say(f"    {text[:300]!r}")
    if keep and tally.failures:
        keep.mkdir(parents=True, exist_ok=True)
        for failure in tally.failures:
            path = keep / f"{tally.name.replace(' ', '-')}-{failure.get('number', 'all')}"
            path.write_bytes(failure.get("input", "").encode("latin-1"))


if __name__ == "__main__":
    sys.exit(main())
