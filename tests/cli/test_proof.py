"""`reuselib prove`: what is on the screen, what is in the JSON, what the exit code is."""

from __future__ import annotations

import json
import shutil

import pytest

from chains import flip, text_chain
from reuselib.cli import main


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return text_chain(tmp_path_factory.mktemp("chain"))


def test_a_chain_from_root_to_leaf(chain, tmp_path, capsys):
    arguments = ["prove", str(chain.tuned.folder), "--store", str(tmp_path / "empty")]
    for folder in (chain.base, chain.lora.folder, chain.merged.folder):
        arguments += ["--parents", str(folder)]

    assert main(arguments) == 0

    out = capsys.readouterr().out
    assert out.startswith(f"{chain.tuned.manifest.name}: proven (3 steps")
    assert out.count("\nproven ") == 3
    assert "  + every frozen tensor is bit-equal to the parent's (" in out
    assert "not checked: " in out


def test_json_says_the_same(chain, capsys):
    assert main(["prove", str(chain.merged.folder), "--store", str(chain.store), "--json"]) == 0

    proof = json.loads(capsys.readouterr().out)
    assert (proof["ok"], proof["tier"]) == (True, "proven")
    assert [step["adapter"] for step in proof["steps"]] == ["merge", "lora"]
    assert all(finding["holds"] for step in proof["steps"] for finding in step["findings"])
    assert proof["unchecked"]


def test_what_does_not_hold_is_marked_and_ends_in_5(chain, tmp_path, capsys):
    shutil.copytree(chain.tuned.folder, tmp_path / "model")
    flip(tmp_path / "model/model.safetensors")

    assert main(["prove", str(tmp_path / "model"), "--store", str(chain.store)]) == 5

    assert "  ! the files are those that the manifest records" in capsys.readouterr().out


def test_a_parent_that_is_not_at_hand_is_no_failure(chain, tmp_path, capsys):
    assert main(["prove", str(chain.lora.folder), "--store", str(tmp_path / "empty")]) == 0

    out = capsys.readouterr().out
    assert "recorded" in out.splitlines()[0]
    assert "is not at hand" in out


def test_a_name_from_a_stranger_neither_marks_up_nor_moves_the_cursor(capsys):
    from reuselib.adapter import Finding
    from reuselib.cli.proof import show_proof
    from reuselib.evidence.proof import Proof, ProvenStep

    finding = Finding("claim", False, "[red]x", "a\x1b[2Jb")
    step = ProvenStep("n\nm", "0" * 64, "merge", "merge", (finding,), "broken")
    show_proof(Proof("n\nm", "0" * 64, (step,), {}, ()))

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[red]x" in out
    assert "n\nm" not in out


def test_a_tier_that_is_demanded_and_not_reached_ends_in_5(chain, tmp_path, capsys):
    arguments = ["prove", str(chain.lora.folder), "--store", str(tmp_path / "empty")]

    assert main([*arguments, "--require", "recorded"]) == 0
    assert main([*arguments, "--require", "proven"]) == 5

    shown = capsys.readouterr()
    assert "is recorded, not proven" in shown.err
    assert f"there is no store at {tmp_path / 'empty'}" in shown.out
    # once in each of the two runs: on the line of its step
    assert shown.out.count("is not at hand") == 2


def test_no_folder_is_no_broken_promise(tmp_path, capsys):
    assert main(["prove", str(tmp_path / "nothing")]) == 3
    assert "no folder" in capsys.readouterr().err
