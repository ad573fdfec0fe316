from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from reuselib.errors import IntegrityError
from reuselib.lineage.rows import TensorRow
from reuselib.lineage.trail import (
    MAX_ENTRIES,
    Entry,
    Trail,
    dump_trails,
    ends_in,
    parse_trails,
    rows_digest,
    state_hash,
)

DIGESTS = [hashlib.sha256(bytes([n])).hexdigest() for n in range(8)]


def entry(step: int, kept: str = "") -> Entry:
    return Entry(step=step, state=DIGESTS[0], loss=0.5, rows=DIGESTS[1], kept=kept)


def trail(*steps: int, every: int = 10, num_steps: int = 0) -> Trail:
    return Trail(
        every=every,
        num_steps=num_steps or steps[-1],
        num_rows=100,
        tensors=("a", "é"),
        entries=tuple(entry(step) for step in steps),
    )


def code(data: bytes) -> str:
    with pytest.raises(IntegrityError) as caught:
        parse_trails(data)
    assert "lineage/trail.jsonl" in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize(
    "one",
    [
        trail(1),
        trail(1, 2, every=2),
        trail(1, 10, 20, 23),
        trail(1, 6, 8, 10, every=2),
        trail(1, 20, 50, 63, every=50),
        replace(
            trail(1, 10, 17, 20), entries=(entry(1), entry(10), entry(17, "a" * 64), entry(20))
        ),
    ],
    ids=["one step", "two", "periodic", "chosen late", "an early one", "kept"],
)
def test_what_is_written_is_read(one):
    assert parse_trails(dump_trails([one])) == (one,)
    assert parse_trails(dump_trails([one, one])) == (one, one)


def test_the_digest_of_a_state_is_the_documented_one():
    rows = [
        TensorRow("é", "BF16", (1, 1), DIGESTS[0], "any"),
        TensorRow("b.w", "F32", (2, 3), DIGESTS[1], "file"),
    ]
    text = f'stateHash1\n{DIGESTS[1]}  F32  2,3  "b.w"\n{DIGESTS[0]}  BF16  1,1  "é"\n'

    assert state_hash(rows) == hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_of_rows_tells_steps_apart():
    assert rows_digest([[3, 1], [2]]) == hashlib.sha256(b"3,1\n2\n").hexdigest()
    assert len({rows_digest(each) for each in ([[3, 1, 2]], [[3, 1], [2]], [[31], [2]])}) == 3


def test_a_trail_ends_in_the_weights_it_led_to():
    rows = [TensorRow(name, "F32", (1,), DIGESTS[2], "f") for name in ("a", "é", "frozen")]
    one = trail(1, 2, every=2)
    right = replace(
        one, entries=(one.entries[0], replace(one.entries[1], state=state_hash(rows[:2])))
    )

    assert ends_in(right, rows) is True
    assert ends_in(right, [*rows[1:], replace(rows[0], sha256=DIGESTS[3])]) is False
    assert ends_in(right, rows[1:]) is None


@pytest.mark.parametrize(
    "one",
    [
        trail(2, 10, every=2),
        trail(1, 10, 20, num_steps=25),
        trail(1, 20, every=10),
        trail(1, 10, 13, 20),
        trail(1, 20, 10, 30),
        trail(1, 10, 10, 20),
        trail(1, 50, 100, every=50),
    ],
    ids=["no first", "no last", "one left out", "one too many", "order", "twice", "no early one"],
)
def test_a_trail_has_the_steps_it_should_have(one):
    assert code(dump_trails([one])) == "BAD_TRAIL"


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, {"trail": 2}),
        (0, {"trail": True}),
        (0, {"hash": "tensorHash1"}),
        (0, {"every": 0}),
        (0, {"every": "10"}),
        (0, {"numSteps": -1}),
        (0, {"tensors": ["é", "a"]}),
        (0, {"tensors": ["a", "a"]}),
        (0, {"tensors": [1]}),
        (0, {"more": 1}),
        (1, {"step": True}),
        (1, {"step": 1.5}),
        (1, {"state": "00"}),
        (1, {"rows": 7}),
        (1, {"loss": "0.5"}),
        (1, {"loss": None}),
        (1, {"kept": ""}),
        (1, {"more": 1}),
    ],
)
def test_lines_are_read_strictly(at, change):
    lines = dump_trails([trail(1, 10, 20)]).splitlines()
    values = {**json.loads(lines[at]), **change}
    lines[at] = json.dumps(
        values, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()

    assert code(b"\n".join(lines) + b"\n") == "BAD_TRAIL"


@pytest.mark.parametrize("missing", ["every", "tensors", "state", "loss"])
def test_no_field_may_be_missing(missing):
    lines = [json.loads(line) for line in dump_trails([trail(1, 10, 20)]).splitlines()]
    for line in lines:
        line.pop(missing, None)
    data = b"".join(
        json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        for line in lines
    )

    assert code(data) == "BAD_TRAIL"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data.replace(b'"every":10', b'"every": 10'),
        lambda data: b"[]\n" + data,
        lambda data: b"".join(data.splitlines(keepends=True)[1:]),
        lambda data: b"".join(data.splitlines(keepends=True)[:1]),
    ],
    ids=["empty", "cut off", "spaces", "no object", "no header", "no entry"],
)
def test_other_forms_are_refused(change):
    assert code(change(dump_trails([trail(1, 10, 20)]))) == "BAD_TRAIL"


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\n",
        b'{"trail":1,"trail":1}\n',
        b"{\n",
        b'{"step":NaN}\n',
        b"[" * 100_000 + b"\n",
        b"\n",
    ],
)
def test_what_is_no_strict_json_is_refused(bad):
    assert code(bad) == "BAD_JSON"


def test_size_is_limited_whatever_the_header_says():
    long = trail(*range(1, MAX_ENTRIES + 10), every=1)
    short = replace(trail(1, 10), num_steps=2**50, every=1)
    line = dump_trails([replace(short, entries=(entry(1), entry(2**50)))])

    assert code(dump_trails([long])) == "LIMIT"
    assert code(line) == "BAD_TRAIL"
    assert code(b"\n" * 1_000_000) == "LIMIT"
