"""Kill `gc` at its writes: `python tests/crash/collecting.py <store> <how many>`, a store of which nothing is packed yet.

In a process of its own that has computed nothing, since it forks one child for each kill. Prints what was wrong, and how
many kills there were.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from crash.run import say
from crash.writes import Mishap, Watch
from reuselib.lineage.collection import collect
from reuselib.lineage.store import Store
from reuselib.lineage.verify import verify


def main(store: Path, num_kills: int) -> int:
    names = sorted(path.name for path in (store / "models").iterdir())
    place = store.with_name("killed")
    total = _collected(store, place, None)
    done = 0
    for number in range(num_kills):
        at, how = number * total // num_kills, ("kill", "kill-after")[number % 2]
        done += _collected(store, place, Mishap(at, how)) < 0
        left = Store(place)
        for again in (False, True):
            if again:
                collect(left, idle_seconds=0)
            for name in names:
                found = left.find(name)
                if found is None or not verify(found).ok:
                    say(f"{how} at {at}: {name[:12]} is {'lost' if found is None else 'damaged'}")
        if rests := [*(place / "tmp").iterdir()]:
            say(f"{how} at {at}: {rests} was left behind")
    say(f"{done} kills at {total} operations")
    return 0


def _collected(store: Path, place: Path, mishap: Mishap | None) -> int:
    """Collect a copy; gives the number of operations, or the signal that ended it as a negative number."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(store, place)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        watch = Watch(place, mishap, keep=False)
        watch.install()
        collect(Store(place), idle_seconds=0)
        watch.root = Path("/nowhere")
        os.write(writing, str(len(watch.log)).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        text = said.read()
    code = os.waitstatus_to_exitcode(status)
    return int(text) if code == 0 else code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
