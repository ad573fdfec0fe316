"""An audit as it is typed and read."""

from __future__ import annotations

import errno
import json
import shutil

import pytest

from chains import Chain, text_chain
from reuselib.cli import main
from reuselib.testing.checking import write_rows
from reuselib.testing.forging import restate


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Chain:
    return text_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def typed(capsys, chain):
    """Types `reuselib audit`; gives exit code, standard output and standard error."""

    def run(folder, *options: str) -> tuple[int, str, str]:
        code = main(["audit", str(folder), "--store", str(chain.store), *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def child(chain, tmp_path):
    return shutil.copytree(chain.merged.folder, tmp_path / "child")


def test_an_accepted_model_ends_with_the_verdict(chain, typed):
    code, out, _ = typed(chain.merged.folder)

    assert code == 0
    assert out.splitlines()[-1] == "base-lora-merge: accepted"
    assert "objections" not in out
    for heading in (
        "history:",
        "scan:",
        "claims:",
        "licences:",
        "card:",
        "completeness:",
        "not checked:",
    ):
        assert heading in out
    assert "base-lora-merge (merge): proven, recorded" in out
    assert "not legal advice" in out
    assert "unknown: licence (write `license` into the front matter of README.md)" in out


def test_objections_come_first_and_decide_the_exit_code(child, typed):
    (child / "evil.py").write_text("import os\nos.system('x')\n")

    code, out, _ = typed(child)

    assert code == 5
    assert out.splitlines()[1].startswith("  objections:   record: UN")
    assert out.splitlines()[-1].startswith("base-lora-merge: NOT accepted, ")
    assert "danger   CODE: evil.py" in out


def test_findings_are_written_and_printed_as_json(child, typed, tmp_path):
    code, out, _ = typed(child, "--json", "--output", str(tmp_path / "audit.json"))

    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "audit.json").read_text())


def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(child, typed, tmp_path):
    code, out, err = typed(child, "--output", str(tmp_path / "nowhere/audit.json"))

    assert code == 3
    assert out == ""
    assert f"cannot write {tmp_path}/nowhere/audit.json: there is no folder" in err
    assert "--store" not in err


def test_findings_are_printed_although_they_could_not_be_written(
    child, typed, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "no room", "/part/of/it")

    monkeypatch.setattr("reuselib.lineage.disk.os.fsync", full)

    code, out, err = typed(child, "--output", str(tmp_path / "audit.json"))

    assert code == 3
    assert out.splitlines()[-1] == "base-lora-merge: accepted"
    assert f"cannot write {tmp_path}/audit.json: " in err
    assert "--store" not in err


def test_what_goes_with_a_metric_takes_one_line(child, typed, chain):
    _, out, _ = typed(child)

    assert len([line for line in out.splitlines() if "num_parameters" in line]) == 1
    [line] = [line for line in out.splitlines() if "num_parameters" in line]
    assert "worst_slice" in line


def test_a_policy_decides(child, typed, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("require: [proven]\nmin_completeness: 0.99\n")

    code, out, _ = typed(child, "--policy", str(policy))

    assert code == 5
    assert "completeness: " in out.splitlines()[1]


def test_rows_are_taken_from_where_they_are_said_to_be(chain, child, typed, tmp_path):
    data = write_rows(tmp_path / "rows", 24)

    _, out, _ = typed(child, "--data", data.source)

    assert "it is about other rows than those at hand" in out


def test_a_folder_that_is_not_there_is_an_error(typed, tmp_path):
    code, _, err = typed(tmp_path / "nothing")

    assert code == 3
    assert "no folder" in err


def test_names_cannot_write_on_the_terminal(child, typed):
    restate(
        child, lambda statement: statement["subject"][0].update(name="\x1b[2Jgood [bold]x[/bold]")
    )
    (child / "README.md").write_text('---\nclaims: [{metric: "\x1b[31mx", value: 1}]\n---\n')

    _, out, _ = typed(child)

    assert "\x1b" not in out
    assert "[bold]" in out
