from __future__ import annotations

import json
import shutil

import pytest

from reuselib.evidence.card_check import check_card


@pytest.fixture
def child(chain, tmp_path):
    return shutil.copytree(chain.tuned.folder, tmp_path / "child")


def edit(folder, old: str, new: str) -> None:
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
def test_the_card_that_we_write_agrees(chain, step):
    found = check_card(getattr(chain, step).folder)

    assert found.differences == ()
    assert found.silent == ()
    assert found.unchecked == ()


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('base_model: "file:base"', "base_model: meta-llama/Llama-3", "base_model"),
        ('base_model: "file:base"', "base_model: [file:base, other/one]", "base_model"),
        ('base_model_relation: "finetune"', "base_model_relation: merge", "base_model_relation"),
        ("lineage/manifest.json", "elsewhere.json", "lineage"),
        ("metrics:", "datasets: [some/rows]\nmetrics:", "datasets"),
        (
            '"type": "accuracy", "value": ',
            '"type": "accuracy", "value": 1',
            "model-index: accuracy",
        ),
        ('"type": "accuracy", "value": ', '"type": "bleu", "value": ', "model-index: bleu"),
        ("| accuracy | ", "| accuracy | 9", "table: accuracy"),
    ],
)
def test_what_differs_is_named(child, old, new, key):
    edit(child, old, new)

    [difference] = check_card(child).differences

    assert (difference.place, difference.key) == ("README.md", key)
    assert key in str(difference)


def test_a_licence_is_compared_where_one_is_recorded(chain, tmp_path):
    from chains import LORA, run
    from reuselib.testing.tiny import tiny_bert

    base = tiny_bert(tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    [made] = run(LORA, base, tmp_path / "store", data=chain.rows).children
    assert check_card(made.folder).differences == ()

    child = shutil.copytree(made.folder, tmp_path / "child")
    edit(child, "license: ", 'license: "mit"\nformer: ')

    [difference] = check_card(child).differences
    assert (difference.key, difference.stated, difference.recorded) == (
        "license",
        "mit",
        "apache-2.0",
    )


def test_rounding_is_no_difference(child, chain):
    loss = (
        chain.tuned.manifest
        and json.loads((child / "lineage/metrics.json").read_text())["after"]["loss"]
    )
    edit(child, f'"value": {loss}', f'"value": {loss:.4f}')

    assert check_card(child).differences == ()


def test_a_card_that_is_silent_is_told(child):
    (child / "README.md").write_text("---\nlanguage: en\n---\n")

    found = check_card(child)

    assert found.differences == ()
    assert set(found.silent) == {"base_model", "base_model_relation", "lineage", "model-index"}


@pytest.mark.parametrize("text", [None, "# Title\n"])
def test_without_front_matter_all_is_silent(child, text):
    (child / "README.md").unlink()
    if text:
        (child / "README.md").write_text(text)

    assert "base_model" in check_card(child).silent


def test_a_card_that_cannot_be_read_is_told(child):
    (child / "README.md").write_text("---\nbase_model: [\n---\n")

    assert "README.md:2" in check_card(child).unchecked[0]


def test_a_record_that_is_not_sound_is_told(child):
    (child / "lineage/metrics.json").write_text("{}")

    assert "not the file that the manifest names" in check_card(child).unchecked[0]


@pytest.mark.parametrize(
    ("stated", "differs"),
    [
        ("file:base", False),
        ("/somewhere/base", False),
        ("base", False),
        ("evil/other", True),
        (None, False),
        (3, False),
    ],
)
def test_the_base_that_peft_would_open_is_compared(chain, tmp_path, stated, differs):
    child = shutil.copytree(chain.lora.folder, tmp_path / "child")
    path = child / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": stated}))

    found = check_card(child).differences

    assert bool(found) is differs
    assert all(each.place == "adapter_config.json" for each in found)


def test_everything_is_plain_json(child):
    edit(child, 'base_model: "file:base"', "base_model: {a: [1]}")

    json.dumps(check_card(child).to_json())
