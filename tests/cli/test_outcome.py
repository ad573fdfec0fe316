from __future__ import annotations

import sys

from reuselib.cli import outcome


def test_the_next_command_can_be_typed_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/reuselib", "run"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert outcome._program() == ".venv/bin/reuselib"

    monkeypatch.setattr(sys, "argv", ["python", "-m", "reuselib"])
    assert outcome._program() == "reuselib"
