"""A small share of what `make fuzz` runs, and whether what it looks for would be found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import run
from fuzz.targets import Target, targets
from reuselib.errors import ReuseError

EVERY = {each.name: each for each in targets()}


@pytest.mark.parametrize("name", EVERY)
def test_sound_inputs_are_accepted(name, tmp_path):
    for data in EVERY[name].seeds:
        EVERY[name].read(data, tmp_path)


@pytest.mark.parametrize("name", EVERY)
def test_damaged_inputs_are_accepted_or_refused_in_words(name, tmp_path):
    tally = run.fuzz(EVERY[name], 20, 1, tmp_path)

    assert not tally.failures
    assert tally.refused.total() > 0


def test_inputs_are_the_same_for_the_same_seed():
    one, other = targets()[0], targets()[0]

    assert [one.input(7, n) for n in range(20)] == [other.input(7, n) for n in range(20)]
    assert len({one.input(7, n) for n in range(20)}) > 15


def planted(read) -> Target:
    return Target("planted", (b"{}",), lambda draw, data: data, read)


def _endless(data: bytes, folder: Path) -> None:
    while True:
        pass


def _loses_a_key(data: bytes, folder: Path) -> None:
    raise KeyError("x")


def _says_nothing(data: bytes, folder: Path) -> None:
    raise ReuseError("")


@pytest.mark.parametrize(
    ("read", "why"),
    [(_endless, "Hang"), (_loses_a_key, "KeyError"), (_says_nothing, "without a word")],
)
def test_what_goes_wrong_is_found(read, why, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "MAX_CPU_SECONDS", 0.05)

    tally = run.fuzz(planted(read), 2, 0, tmp_path)

    assert [why in failure["why"] for failure in tally.failures if "why" in failure][:2] == [
        True,
        True,
    ]


def test_memory_beyond_the_limit_is_found(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(run.__file__).parents[1])!r})\n"
        "from fuzz import run\n"
        "from fuzz.targets import Target\n"
        "greedy = Target('greedy', (b'',), lambda draw, data: data, lambda *_: bytearray(400 * 10**6), bombs={})\n"
        "run._child(greedy, 1, 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "MemoryError" in done.stdout


def test_the_command_prints_a_table_and_says_how_it_ended(capsys):
    assert run.main(["--inputs", "30", "--only", "checksums", "--small"]) == 0

    out = capsys.readouterr().out
    assert "30 inputs, 0 not handled" in out
