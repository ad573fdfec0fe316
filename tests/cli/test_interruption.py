"""A run of a tiny model that is told to end, by real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reuselib.cli.interruption import again, words
from reuselib.errors import Interrupted
from reuselib.testing.tiny import tiny_bert, tiny_rows

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")

RUN = """
import os, sys
from reuselib.training.trail import Recorder
number = int(sys.argv.pop(1))
seen = Recorder.see

def see(self, step, *others):
    seen(self, step, *others)
    if step == 5:
        os.kill(os.getpid(), number)

Recorder.see = see
from reuselib.cli import main
sys.exit(main())
"""
"""The command, with a signal in the fifth step."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    tiny_bert(folder / "bert")
    (folder / "rows").mkdir()
    for split in ("train", "test"):
        text = "".join(f"{json.dumps(row)}\n" for row in tiny_rows(48, seed=len(split)))
        (folder / "rows" / f"{split}.jsonl").write_text(text)
    (folder / "a recipe.yaml").write_text(
        "base: {source: ./bert}\ntask: text_classification\ndata: {source: ./rows}\n"
        "steps:\n  - finetune: {fit: {epochs: 2, batch_size: 8, learning_rate: 1e-3, precision: fp32}}\n"
    )
    return folder


def run(project: Path, number: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, str(number), "run", "a recipe.yaml", "--json", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=200, check=False
    )  # fmt: skip


@pytest.fixture
def one_thread():
    """As the processes have it, so that the weights are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_sigterm_and_ctrl_c_keep_the_training_and_say_how_to_go_on(project, typed, monkeypatch):
    # only what is sent a signal needs a process, which takes seconds to start
    monkeypatch.chdir(project)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code, whole, told = typed("run", "a recipe.yaml", "--json", "--store", "whole")
    assert code == 0, told
    for name in ("SIGTERM", "SIGINT"):
        done = run(project, getattr(signal, name), "--store", name, "--resume", "no")

        assert done.returncode == 130
        assert "interrupted after step 5 of 12, which is kept." in done.stderr
        assert f"run 'a recipe.yaml' --json --store {name}\n" in done.stderr
        assert "--resume" not in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""

    code, gone_on, told = typed("run", "a recipe.yaml", "--json", "--store", "SIGINT")
    assert code == 0, told
    assert "resumed after step 5 of 12 (" in told
    assert json.loads(gone_on)["digest"] == json.loads(whole)["digest"]


def test_the_command_that_goes_on_can_be_pasted(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(sys, "argv", ["reuselib"])

    assert again(["run", "r.yaml", "--resume", "no", "steps[0]=merge"]) == (
        "reuselib run r.yaml 'steps[0]=merge'"
    )
    assert again(["run", "--resume=x y", "r.yaml"]) == "reuselib run r.yaml"


def test_a_launcher_is_to_be_named_again(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert again(["run", "r.yaml"]) == "the same command, with its launcher"


def test_what_could_not_be_kept_is_said(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reuselib"])
    told = words(Interrupted(3, 9, None, "no room"), ["run", "r.yaml"])

    assert told.startswith("interrupted after step 3 of 9, which could not be kept: no room.")
    assert told.endswith("\n  reuselib run r.yaml")
