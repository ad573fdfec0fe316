"""`reuselib check` before anything is loaded, as typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reuselib.cli import main
from reuselib.measure import memory
from reuselib.testing.tiny import tiny_bert, tiny_llama


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    tiny_bert(tmp_path / "bert")
    Path("tiny.yaml").write_text(
        "base: {source: ./bert}\ntask: text_classification\ndata: {source: 'sample:senses'}\n"
        "steps:\n  - finetune: {fit: {epochs: 1}}\n"
    )
    return "tiny.yaml"


def test_weights_are_not_read_where_an_estimate_is_enough(recipe, capsys):
    weights = Path("bert/model.safetensors")
    data = weights.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    weights.write_bytes(data[:header] + bytes(len(data) - header))

    assert main(["check", recipe, "--without-weights", "--processes", "2", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["budget"]["fits"]
    assert told["budget"]["steps"][0]["sharded_bytes"] < told["budget"]["steps"][0]["peak_bytes"]
    assert "digest" not in told


def test_what_does_not_fit_is_not_tried(recipe, capsys, monkeypatch):
    monkeypatch.setattr("reuselib.derivation.budget.available", lambda: -(2**40))
    monkeypatch.setattr("reuselib.derivation.rehearsal.rehearse", lambda *_: pytest.fail("tried"))

    assert main(["check", recipe]) == 3

    screen, errors = capsys.readouterr()
    assert "memory" in screen
    assert "memory does not fit: needs" in errors


@pytest.mark.parametrize("adapter", ["finetune", "lora"])
def test_the_documented_output_is_what_the_command_prints(tmp_path, monkeypatch, capsys, adapter):
    monkeypatch.chdir(tmp_path)
    tiny_llama(tmp_path / "llama", tied=False)
    Path("recipe.yaml").write_text(
        "base: {source: ./llama}\ntask: {causal_lm: {text: text, max_length: 128}}\n"
        "data: {source: 'sample:docstrings'}\n"
        f"steps:\n  - {adapter}: {{fit: {{batch_size: 8, max_steps: 1000}}}}\n"
    )
    # what is lacking with the model on the page
    free = {"finetune": 0, "lora": 10**15}[adapter]
    monkeypatch.setattr("reuselib.derivation.budget.available", lambda: 0)
    monkeypatch.setattr("reuselib.derivation.budget._free_disk", lambda _: free)

    main(["check", "recipe.yaml", "--without-weights", "--processes", "8"])

    screen = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs/how-to/many-gpus.md").read_text()
    blocks = page.split("```")[1::2]
    documented = next(each for each in blocks if f"\n{adapter} " in each and "FSDP2" in each)
    assert _form(screen) == _form(documented)


def _form(text: str) -> list[list[str]]:
    """Its lines as words, without figures, their units, and paths; nor which moment is the worst."""
    figures = re.compile(r"\b\d[\d.]*(e\+\d+)?( [kMGT]?B\b)?")
    lines = figures.sub("#", text.strip()).splitlines()
    phases = ("training", "opening", "measuring", "before")
    return [
        ["base:"] if line.startswith("base:") else [w for w in line.split() if w not in phases]
        for line in lines
    ]


@pytest.mark.parametrize(
    ("group", "limit", "usage"),
    [
        ("0::/a/b", "memory.max", "memory.current"),
        ("4:memory:/a/b", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_a_control_group_above_this_one_limits_memory(tmp_path, monkeypatch, group, limit, usage):
    top = tmp_path / "groups" / ("memory" if "memory:" in group else "")
    (top / "a" / "b").mkdir(parents=True)
    for folder, most in ((top / "a", "1000000"), (top / "a" / "b", "max")):
        (folder / limit).write_text(most)
        (folder / usage).write_text("600000")
        (folder / "memory.stat").write_text("inactive_file 100000\ntotal_inactive_file 100000\n")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{group}\n")
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CONTROL_GROUPS", tmp_path / "groups")

    assert memory.available() == 500_000
