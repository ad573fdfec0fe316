"""The trail of a training: digests of its state on the way, so that a part of it can be held against a replay.

`lineage/trail.jsonl`: for each training of the step one line that says what was hashed and how often, then one line
for each step that was looked at. What is in it and how `stateHash1` is computed: docs/explanation/lineage.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.lineage.rows import TensorRow, inventory_hash

if TYPE_CHECKING:
    from reuselib.adapter import Json

TRAIL = "lineage/trail.jsonl"
"""Where the trail is, in a model folder."""
STATE_HASH = "stateHash1"
MAX_ENTRIES = 2_000
"""Of one training; whoever records looks less often instead."""
MAX_TRAILS = 64
"""Trainings of one step of a recipe."""
WARM_UP = 5
"""Steps after which it is known how long one takes, and `every` is chosen. Of these, only the first has an entry."""
EARLY = 20
"""A step that always has an entry, however seldom the others: for a first window that is no longer than it must be."""
_VERSION = 1
_HEADER = {"trail", "hash", "every", "numSteps", "numRows", "tensors"}
_HEX = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was noted after one optimizer step."""

    step: int
    """How many steps were done, so the first is 1."""
    state: str
    """`stateHash1` of what is trained, after this step."""
    loss: float
    """Of the batch of this step, before it."""
    rows: str
    """SHA-256 over the row numbers of the steps since the entry before."""
    kept: str = ""
    """SHA-256 of the state that was kept after this step, see `training.state`."""

    def to_json(self) -> dict[str, Json]:
        """As a line of the trail."""
        line: dict[str, Json] = {
            "step": self.step,
            "state": self.state,
            "loss": self.loss,
            "rows": self.rows,
        }
        return {**line, "kept": self.kept} if self.kept else line


@dataclass(frozen=True, kw_only=True)
class Trail:
    """One training, as it was noted down."""

    every: int
    """Entries are at multiples of this, at the first step, at step `EARLY`, at the last, and where a state was kept."""
    num_steps: int
    """Optimizer steps that were done."""
    num_rows: int
    """Rows of the training split, which the batches were made of."""
    tensors: tuple[str, ...]
    """Names of what the last `state` is the digest of, sorted: what was trained, and buffers that changed."""
    entries: tuple[Entry, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """Where the entries are."""
        return tuple(entry.step for entry in self.entries)

    @property
    def kept(self) -> tuple[Entry, ...]:
        """Entries whose state was kept."""
        return tuple(entry for entry in self.entries if entry.kept)

    def at(self, step: int) -> Entry | None:
        """The entry of a step, if there is one."""
        return next((entry for entry in self.entries if entry.step == step), None)


def state_hash(rows: Iterable[TensorRow]) -> str:
    """`stateHash1` of tensors: as `tensorHash1`, but it says of itself that it is that of a state."""
    return inventory_hash(STATE_HASH, rows)


def rows_digest(batches: Iterable[Sequence[int]]) -> str:
    """SHA-256 over a line for each step: the numbers of its rows in order, with commas between."""
    lines = "".join(f"{','.join(map(str, batch))}\n" for batch in batches)
    return hashlib.sha256(lines.encode()).hexdigest()


def dump_trails(trails: Iterable[Trail]) -> bytes:
    """As JSON lines, one training after another."""
    lines: list[dict[str, Json]] = []
    for trail in trails:
        header: dict[str, Json] = {
            "trail": _VERSION,
            "hash": STATE_HASH,
            "every": trail.every,
            "numSteps": trail.num_steps,
            "numRows": trail.num_rows,
            "tensors": list(trail.tensors),
        }
        lines += [header, *(entry.to_json() for entry in trail.entries)]
    return b"".join(canonical.dumps(line) + b"\n" for line in lines)


def parse_trails(data: bytes, *, path: str = TRAIL) -> tuple[Trail, ...]:
    """Read what `dump_trails` wrote, and nothing else.

    Raises:
        IntegrityError: `BAD_TRAIL`, with the line; `BAD_JSON`; or `LIMIT` if it is longer than any that is written.
    """
    if data.count(b"\n") > (MAX_ENTRIES + 1) * MAX_TRAILS:
        raise IntegrityError("LIMIT", f"{path}: {data.count(bytes([10]))} lines", path=path)
    lines = data.split(b"\n")
    if lines.pop() or not lines:
        raise _bad(path, len(lines) + 1, "the file is empty, or its last line is cut off")
    trails: list[Trail] = []
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        value = canonical.loads(line, path=path)
        if not isinstance(value, dict) or canonical.dumps(value) != line:
            raise _bad(path, number, "no object in canonical form (RFC 8785)")
        if "trail" in value:
            _close(trails, entries, path, number)
            trails.append(_header(value, path, number))
            entries = []
        elif trails:
            entries.append(_entry(value, path, number))
        else:
            raise _bad(path, number, "no line before it says what was hashed")
    _close(trails, entries, path, len(lines))
    return tuple(trails)


def ends_in(trail: Trail, rows: Iterable[TensorRow]) -> bool | None:
    """Whether the last state of a trail is found in tensors; None if they do not have all of its names.

    That is so where what was trained was stored under other names or in another form, or only in part. Where early
    stopping put earlier weights back, the last state is not in the child either, so ask only without it.
    """
    found = {row.name: row for row in rows}
    if not all(name in found for name in trail.tensors):
        return None
    return state_hash(found[name] for name in trail.tensors) == trail.entries[-1].state


def _close(trails: list[Trail], entries: Sequence[Entry], path: str, number: int) -> None:
    """Give the last training its entries, which must be all that it should have and no other."""
    if not trails:
        return
    if len(entries) > MAX_ENTRIES or len(trails) > MAX_TRAILS:
        raise IntegrityError(
            "LIMIT", f"{path}: {len(entries)} entries, {len(trails)} trainings", path=path
        )
    trail = trails[-1] = replace(trails[-1], entries=tuple(entries))
    steps = trail.steps
    if not steps or steps[0] != 1 or steps[-1] != trail.num_steps:
        raise _bad(path, number, "the first step or the last is not in it")
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise _bad(path, number, "its steps are not in order")
    if missing := next(_missing(trail), 0):
        raise _bad(path, number, f"it lacks step {missing}, with one of every {trail.every} steps")
    spare = (entry for entry in entries[1:-1] if entry.step != EARLY and not entry.kept)
    if any(entry.step % trail.every for entry in spare):
        raise _bad(path, number, f"it has more than one of every {trail.every} steps")


def _missing(trail: Trail) -> Iterator[int]:
    """Steps that should have an entry and do not; no more than the largest trail has, whatever the header says."""
    present = set(trail.steps)
    periodic = range(trail.every, trail.num_steps, trail.every)[: MAX_ENTRIES + WARM_UP]
    due = (*periodic, EARLY) if trail.num_steps > EARLY else periodic
    return (step for step in due if step > WARM_UP and step not in present)


def _header(value: Mapping[str, Json], path: str, number: int) -> Trail:
    match value:
        case {
            "trail": int(version),
            "hash": str(name),
            "every": int(every),
            "numSteps": int(num_steps),
            "numRows": int(num_rows),
            "tensors": list(tensors),
        } if set(value) == _HEADER:
            counts = (version, every, num_steps, num_rows)
            names = tuple(each for each in tensors if isinstance(each, str))
            if (
                version == _VERSION
                and name == STATE_HASH
                and not any(isinstance(each, bool) for each in counts)
                and min(counts) >= 1
                and len(names) == len(tensors) == len(set(names))
                and list(names) == sorted(names, key=str.encode)
            ):
                return Trail(
                    every=every, num_steps=num_steps, num_rows=num_rows, tensors=names, entries=()
                )
    raise _bad(path, number, f"not the first line of a trail of version {_VERSION}")


def _entry(value: Mapping[str, Json], path: str, number: int) -> Entry:
    digests = [value.get("state"), value.get("rows"), value.get("kept", "0" * 64)]
    step, loss = value.get("step"), value.get("loss")
    if (
        set(value) | {"kept"} == {"step", "state", "loss", "rows", "kept"}
        and isinstance(step, int)
        and isinstance(loss, int | float)
        and not isinstance(step, bool)
        and not isinstance(loss, bool)
        and all(isinstance(each, str) and _HEX.fullmatch(each) for each in digests)
    ):
        state, rows, kept = (str(value.get(name, "")) for name in ("state", "rows", "kept"))
        return Entry(step=step, state=state, loss=float(loss), rows=rows, kept=kept)
    raise _bad(path, number, "not an entry: step, state, loss, rows, and perhaps kept")


def _bad(path: str, number: int, why: str) -> IntegrityError:
    return IntegrityError("BAD_TRAIL", f"{path}, line {number}: {why}", path=path)
