"""`--processes`, without starting any; tests/derivation/test_launchers.py does."""

from __future__ import annotations

import pytest

from reuselib.cli import processes
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_bert
from reuselib.training.launch import PROCESSES


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    base, rows = tiny_bert(folder / "base", head=True), write_rows(folder / "rows")
    path = folder / "recipe.yaml"
    path.write_text(
        f"base: {{source: {base}}}\ntask: {{text_classification: {{}}}}\n"
        f"data: {{source: {rows.source}}}\nsteps: [quantize]\n"
    )
    return path


@pytest.fixture
def started(monkeypatch):
    """What would be started; it ends as interrupted."""
    calls = []

    def launch(command, num_processes, *, cpu):
        calls.append((list(command), num_processes, cpu))
        return 130

    monkeypatch.setattr(processes, "launch", launch)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(processes, "count_accelerators", lambda: 0)
    return calls


def test_the_same_command_is_started_and_its_code_is_the_runs(recipe, started, typed, tmp_path):
    line = ["run", str(recipe), "seed=3", "--store", str(tmp_path), "--processes", "2"]

    code, out, err = typed(*line)

    ((command, number, cpu),) = started
    assert command[1:] == ["-m", "reuselib", *line]
    assert (code, number, cpu) == (130, 2, True)
    assert "interrupted" not in out + err  # the first process said so


def test_more_processes_than_cores_are_allowed_and_said(
    recipe, started, typed, tmp_path, monkeypatch
):
    monkeypatch.setattr(processes, "num_cores", lambda: 2)

    _, _, err = typed("run", str(recipe), "--store", str(tmp_path), "--processes", "3")

    assert len(started) == 1
    assert err == "3 processes share 2 cores: more than one a core is slower\n"


def test_more_processes_than_accelerators_are_refused(
    recipe, started, typed, tmp_path, monkeypatch
):
    monkeypatch.setattr(processes, "count_accelerators", lambda: 2)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)

    code, _, err = typed("run", str(recipe), "--store", str(tmp_path), "--processes", "3")

    assert code == 3
    assert not started
    assert "has 2 accelerators" in err


@pytest.mark.parametrize("number", ["0", "-2"])
def test_fewer_than_one_are_refused_in_words(recipe, started, typed, number):
    code, _, err = typed("run", str(recipe), "--processes", number)

    assert code == 2
    assert "Invalid value for '--processes'" in err
    assert "greater than or equal to 1" in err
    assert "Traceback" not in err
    assert not started


def test_inside_a_launcher_it_is_refused(recipe, started, typed, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")

    code, _, err = typed("run", str(recipe), "--store", str(tmp_path), "--processes", "2")

    assert code == 2
    assert "launcher" in err
    assert not started


def test_what_is_finished_and_what_is_one_process_start_none(recipe, started, typed, tmp_path):
    once, _, _ = typed("run", str(recipe), "--store", str(tmp_path), "--processes", "1")
    again, _, _ = typed("run", str(recipe), "--store", str(tmp_path), "--processes", "2")

    assert (once, again) == (0, 0)
    assert not started


def test_a_process_that_was_started_so_starts_no_more(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(PROCESSES, "2")

    assert processes._is_one_of(2)
