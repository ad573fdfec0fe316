"""A whole run of a tiny model, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reuselib.cli import main
from reuselib.testing.tiny import tiny_bert, tiny_rows


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, rows and a recipe, in which the commands are typed."""
    monkeypatch.chdir(tmp_path)
    tiny_bert(tmp_path / "bert")
    for split in ("train", "test"):
        rows = tiny_rows(48, seed=len(split))
        (tmp_path / "rows").mkdir(exist_ok=True)
        (tmp_path / "rows" / f"{split}.jsonl").write_text(
            "".join(f"{json.dumps(row)}\n" for row in rows)
        )
    (tmp_path / "tiny.yaml").write_text(
        "base: {source: ./bert}\n"
        "task: text_classification\n"
        "data: {source: ./rows}\n"
        "steps:\n"
        "  - lora: {r: 2, fit: {epochs: 1, batch_size: 8, learning_rate: 1e-3}}\n"
        "  - merge\n"
    )
    return tmp_path


def test_run_verify_show_and_run_again(project, capsys):
    assert main(["run", "tiny.yaml", "--output", "child"]) == 0
    screen = capsys.readouterr().out
    assert "TF-IDF + logistic regression" in screen
    assert "verify:  reuselib verify child" in screen
    first = [line.split()[0] for line in screen.splitlines() if line]
    assert first[:7] == ["model", "(before)", "lora", "merge", "step", "lora", "merge"]

    assert main(["verify", "child"]) == 0
    assert "matches its manifest" in capsys.readouterr().out

    assert main(["show", "child"]) == 0
    screen = capsys.readouterr().out
    assert "labels: [bad, good]" in screen
    assert "same answer as the model before on 1.000 of the test rows" in screen

    assert main(["run", "tiny.yaml", "--output", "child", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [step["reused"] for step in told["steps"]] == [True, True]
    assert told["folder"] == "child"

    assert main(["run", "tiny.yaml"]) == 0
    assert "nothing was computed" in capsys.readouterr().out


def test_one_flipped_bit_is_found_and_the_tensor_is_named(project, capsys):
    assert main(["run", "tiny.yaml", "--output", "child"]) == 0
    weights = project / "child" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-7] ^= 1
    weights.write_bytes(data)
    capsys.readouterr()

    assert main(["verify", "child"]) == 5

    screen = capsys.readouterr().out
    assert "DIGEST_MISMATCH" in screen
    assert "model.safetensors, tensor " in screen


def test_another_model_is_not_overwritten_unless_told_to(project, capsys):
    assert main(["run", "tiny.yaml", "--output", "child"]) == 0

    assert main(["run", "tiny.yaml", "seed=1", "--output", "child"]) == 3
    assert "child" in capsys.readouterr().err
    assert main(["run", "tiny.yaml", "seed=1", "--output", "child", "--overwrite"]) == 0
    assert main(["verify", "child"]) == 0


def test_check_estimates_and_keeps_nothing(project, capsys):
    assert main(["check", "tiny.yaml", "steps[0].lora.fit.epochs=100"]) == 0
    screen = capsys.readouterr().out
    assert "48 rows to learn from, 48 to measure on" in screen
    assert "this recipe can run" in screen

    assert main(["check", "tiny.yaml", "steps[0].lora.fit.epochs=100", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [step["num_steps"] for step in told["steps"]] == [600, 0]
    assert told["finished"] == 0
    assert told["steps"][0]["seconds"] > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("steps[0].lora.target_modules=[op:Linaer]", "did you mean `op:Linear`"),
        ("task.text_classification.label=lable", "did you mean 'label'"),
        ("data.test=tset", "test"),
        ("steps[0]=merge", "steps[0]: `merge`"),
    ],
)
def test_check_finds_what_would_fail(project, capsys, change, told):
    (project / "tiny.yaml").write_text(
        (project / "tiny.yaml")
        .read_text()
        .replace("text_classification", "{text_classification: {}}")
    )

    assert main(["check", "tiny.yaml", change]) == 3
    assert told in capsys.readouterr().err


def test_a_failed_gate_ends_with_4_and_the_table_is_shown_all_the_same(project, capsys):
    recipe = (project / "tiny.yaml").read_text()
    (project / "tiny.yaml").write_text(
        f"{recipe}gates:\n  - accuracy: {{min: 1.01}}\n  - num_bytes: {{max_ratio: 2}}\n"
    )

    assert main(["run", "tiny.yaml", "--output", "child"]) == 4

    screen, errors = capsys.readouterr()
    assert "gate failed: accuracy is " in screen
    assert "gate passed: the ratio of num_bytes is " in screen
    assert "nothing was computed" not in screen
    assert "`min` wants at least 1.01" in errors
    assert not (project / "child").exists()

    assert main(["run", "tiny.yaml", "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert [each["passed"] for each in told["gates"]] == [False, True]
    assert main(["show", told["folder"]]) == 0
    assert "gate failed: accuracy is " in capsys.readouterr().out

    assert main(["run", "tiny.yaml", "gates[0].accuracy.min=0", "--output", "child"]) == 0
    assert "gate passed: accuracy is " in capsys.readouterr().out
    assert main(["show", "child"]) == 0
    assert "gate failed" not in capsys.readouterr().out


def test_models_are_compared_as_a_table_and_as_json(project, capsys):
    assert main(["run", "tiny.yaml", "--output", "child"]) == 0
    capsys.readouterr()

    assert main(["compare", "./bert", "child", "--recipe", "tiny.yaml"]) == 0
    screen = capsys.readouterr().out
    assert screen.splitlines()[0].split() == ["bert", "child"]
    titles = [line.split("  ")[0] for line in screen.splitlines()[1:] if line[:1] != " "]
    assert titles[:3] == ["accuracy", "f1", "loss"]
    assert {"parameters", "FLOPs, one row", "speed-up, 32 rows", "agreement", "KL"} <= set(titles)
    assert "./bert has no head for this task" in screen

    assert main(["compare", "./bert", "child", "--recipe", "tiny.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["source"] for each in told["models"]] == ["./bert", "child"]
    assert 0 <= told["models"][1]["figures"]["agreement"] <= 1


def test_a_comparison_needs_two_models_and_rows(project, capsys):
    assert main(["run", "tiny.yaml", "--output", "child"]) == 0

    assert main(["compare", "child"]) == 2
    assert main(["compare", "child", "./bert"]) == 3
    assert "--recipe" in capsys.readouterr().err


def test_states_are_kept_and_a_window_begins_at_one(project, capsys):
    store = project / "store"
    words = ["--store", str(store)]
    assert main(["run", "tiny.yaml", "--output", "child", "--keep-states", "2", *words]) == 0
    (lora,) = (store / "states").iterdir()
    assert {path.name for path in lora.iterdir()} == {"2", "4"}

    child = str(store / "models" / lora.name)
    rows = ["--data", "./rows", "--window", "last", "--steps", "1", *words]
    assert main(["reproduce", child, *rows]) == 0
    assert "steps 5 to 6 of 6" in capsys.readouterr().out
    assert main(["reproduce", "child", *rows]) == 3
    assert "no trail" in capsys.readouterr().out
    assert main(["reproduce", "child", "--data", "./rows", *words]) == 0
