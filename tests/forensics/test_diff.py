from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from forensics import zoo
from reuselib.cli import main
from reuselib.errors import IntegrityError, SourceError
from reuselib.forensics.diff import diff
from reuselib.forensics.kin import kin
from reuselib.testing.histories import base as root
from reuselib.testing.histories import child

CASES = {
    "same": (lambda w: w, "same", ""),
    "renamed": (zoo.renamed, "same", ""),
    "cast": (zoo.half, "cast", "B"),
    "int8": (zoo.int8, "quantized", "B"),
    "int4": (zoo.int4, "quantized", "B"),
    "masked": (zoo.masked, "masked", "B"),
    "cut": (zoo.cut, "cut", "B"),
    "shallower": (zoo.shallower, "cut", "B"),
    "merged": (zoo.low_rank, "merged-lora", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_the_relation_is_recognised_in_both_directions(tmp_path, bert, case):
    change, kind, side = CASES[case]
    made = zoo.made_from(bert, tmp_path / "made", change)

    forth, back = diff(bert, made).relation, diff(made, bert).relation

    assert (forth.kind, forth.child) == (kind, side), forth.text
    assert (back.kind, back.child) == (kind, {"B": "A"}.get(side, side)), back.text
    assert forth.tier == "inferred"
    assert forth.score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (zoo.int8, ["quantized to int8", "18 layers", "0.50 steps"]),
        (zoo.int4, ["quantized to int4", "18 layers", "0.50 steps"]),
        (zoo.masked, ["50%", "18 matrices", "the smallest of each", "the rest unchanged"]),
        (zoo.half, ["cast to BF16"]),
        (zoo.shallower, ["1 blocks taken out", "rest unchanged"]),
        (zoo.cut, ["slices of 9 tensors", "rest unchanged"]),
        (lambda w: zoo.low_rank(w, rank=3), ["rank 3", "18 matrices"]),
    ],
)
def test_the_line_says_how_much(tmp_path, bert, change, words):
    text = diff(bert, zoo.made_from(bert, tmp_path / "made", change)).relation.text

    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("", "all tensors"),
        ("layer.2.", "the last 1 of 3 blocks"),
        ("layer.0.", "16 of 55 tensors"),
        ("pooler", "the head only"),
    ],
)
def test_fine_tuning_is_told_by_what_moved(tmp_path, bert, only, words):
    tuned = zoo.trained(bert, tmp_path / "tuned", only=only, steps=3)

    found = diff(bert, tuned)

    assert f"fine-tuning of {words}" in found.relation.text
    assert found.prefixes == ("", "bert.")
    assert "2 tensors in B only" in found.relation.text


def test_only_a_new_head_is_the_same_model(tmp_path, bert):
    found = diff(bert, zoo.trained(bert, tmp_path / "t", only="classifier", steps=1)).relation

    assert (found.kind, found.child) == ("head", "B")


def test_another_start_is_no_relative_although_norms_and_biases_agree(tmp_path, bert):
    found = diff(bert, zoo.base(tmp_path / "other", seed=1))

    assert found.relation.kind == "other-start"
    assert not found.relation.is_related
    assert found.counts["identical"] > 10


def test_nothing_in_common_is_unrelated(tmp_path, bert):
    (tmp_path / "m").mkdir()
    save_file({"x": torch.ones(9, 9)}, tmp_path / "m" / "model.safetensors")

    assert diff(bert, tmp_path / "m").relation.kind == "unrelated"


def test_an_adapter_is_known_by_the_layers_it_fits(tmp_path, bert):
    update = zoo.lora(bert, tmp_path / "update")
    wide = zoo.made_from(bert, tmp_path / "wide", zoo.cut)

    assert diff(bert, update).relation.child == "B"
    assert "rank 4" in diff(update, bert).relation.text
    assert "18 of 18" in diff(update, bert).relation.text
    assert "12 of 18" in diff(wide, update).relation.text


def test_mask_then_training_is_told_apart(tmp_path, bert):
    def change(values):
        return {n: torch.where(v == 0, v, v * 1.01) for n, v in zoo.masked(values).items()}

    assert "then trained" in diff(bert, zoo.made_from(bert, tmp_path / "m", change)).relation.text


def test_quantization_of_another_model_is_not_taken_for_one_of_this(tmp_path, bert):
    other = zoo.base(tmp_path / "other", seed=1)
    made = zoo.made_from(other, tmp_path / "made", zoo.int8)

    assert diff(other, made).relation.kind == "quantized"
    assert diff(bert, made).relation.kind == "other-start"


def test_figures_are_those_of_the_dense_computation(tmp_path, bert):
    name = "encoder.layer.0.output.dense.weight"

    def change(values):
        values[name] = values[name] * 1.5 + 0.01
        values[name][0] = 0
        return values

    found = diff(bert, zoo.made_from(bert, tmp_path / "m", change))

    (moved,) = [each for each in found.tensors if each.kind == "changed"]
    x = zoo.weights(bert)[name].double()
    y = zoo.weights(tmp_path / "m")[name].double()
    gap = moved.delta
    assert gap is not None
    assert gap.l2 == pytest.approx(float((y - x).norm()), rel=1e-9)
    assert gap.relative_l2 == pytest.approx(float((y - x).norm() / x.norm()), rel=1e-9)
    assert gap.max_abs == pytest.approx(float((y - x).abs().max()), rel=1e-9)
    assert gap.cosine == pytest.approx(
        float(torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0)), rel=1e-9
    )
    assert gap.zeros == (int((x == 0).sum()), int((y == 0).sum()))
    assert gap.lost == 64


def test_files_are_compared_by_digest(tmp_path, bert):
    other = tmp_path / "other"
    shutil.copytree(bert, other)
    (other / "config.json").write_text("{}")
    (other / "tokenizer.json").unlink()
    (other / "README.md").write_text("# x")

    kinds = {each.path: each.kind for each in diff(bert, other).files}

    assert kinds["config.json"] == "changed"
    assert kinds["tokenizer.json"] == "removed"
    assert kinds["README.md"] == "added"
    assert kinds["model.safetensors"] == "same"
    assert diff(bert, bert).same
    assert not diff(bert, other).same


def test_records_are_compared_field_by_field(tmp_path):
    one = child("one", [("base", root())], recipe={"train": ["head"]})
    other = child("other", [("base", root())], recipe={"train": ["all"]}, accuracy=(0.5, 0.9))

    found = diff(one.write(tmp_path / "one"), other.write(tmp_path / "other"))

    said = {each.name: (each.one, each.other) for each in found.fields}
    assert said["recipe.train"] == (["head"], None), "`all` is the default"
    assert said["metric.accuracy"] == (0.75, 0.9)
    assert "seed" not in said


def test_cards_are_compared_where_there_is_no_record(tmp_path, bert):
    for name, terms in (("a", "mit"), ("b", "apache-2.0")):
        shutil.copytree(bert, tmp_path / name)
        (tmp_path / name / "README.md").write_text(
            f"---\nlicense: {terms}\nbase_model: x/{name}\n---\n"
        )

    said = {f.name: (f.one, f.other) for f in diff(tmp_path / "a", tmp_path / "b").fields}

    assert said == {"licence": ("mit", "apache-2.0"), "parents": (["x/a"], ["x/b"])}


def test_weights_in_other_formats_are_said_to_be_left_out(tmp_path, bert):
    other = tmp_path / "other"
    shutil.copytree(bert, other)
    (other / "pytorch_model.bin").write_bytes(b"\x80\x04.")

    assert any("pytorch_model.bin" in line for line in diff(bert, other).unchecked)


def test_values_that_are_not_finite_are_null_in_json(tmp_path, bert):
    def change(values):
        values["pooler.dense.weight"][0, 0] = float("nan")
        return values

    found = diff(bert, zoo.made_from(bert, tmp_path / "m", change))

    (moved,) = json.loads(json.dumps(found.to_json(), allow_nan=False))["tensors"]
    assert moved["delta"]["max_abs"] is None
    assert moved["rank"]["note"] == "not finite"


def test_malformed_integer_layers_are_shown_as_the_tensors_they_are(tmp_path, bert):
    def change(values):
        values = zoo.int4(values)
        for name in [*values]:
            if name.endswith("_shape"):
                values[name] = torch.tensor([-1, 2**40])
        return values

    found = diff(bert, zoo.made_from(bert, tmp_path / "m", change))

    assert any(each.name.endswith("weight_packed") for each in found.tensors)


def test_what_is_no_model_is_a_typed_error(tmp_path, bert):
    with pytest.raises(SourceError):
        diff(bert, tmp_path / "nowhere")
    (tmp_path / "m").mkdir()
    for read in (lambda folder: diff(bert, folder), lambda folder: kin([bert, folder])):
        with pytest.raises(SourceError, match="holds no model"):
            read(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(IntegrityError, match="BAD_SAFETENSORS"):
        diff(bert, tmp_path / "m")


def test_a_record_that_cannot_be_read_is_told_at_once(tmp_path, bert, capsys):
    shutil.copytree(bert, tmp_path / "m")
    (tmp_path / "m/lineage").mkdir()
    (tmp_path / "m/lineage/manifest.json").write_text("{broken")

    found = diff(bert, tmp_path / "m")

    (problem,) = found.problems
    assert problem.startswith("the record of B cannot be read: BAD_JSON")
    assert found.to_json()["problems"] == [problem]
    assert main(["diff", str(bert), str(tmp_path / "m")]) == 0
    assert "the record of B cannot be read" in capsys.readouterr().out.partition("not checked")[0]


def test_equal_models_are_compared_without_torch(bert):
    code = (
        "import sys; from reuselib.cli import main\n"
        f"assert main(['diff', {str(bert)!r}, {str(bert)!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "the same weights  [inferred]" in done.stdout


def test_the_verb_prints_what_moved_and_what_was_not_checked(tmp_path, bert, capsys):
    made = zoo.made_from(bert, tmp_path / "made", zoo.low_rank)

    assert main(["diff", str(bert), str(made)]) == 0
    shown = capsys.readouterr().out
    assert "rank 2" in shown
    assert "18 changed" in shown
    assert "not checked: " in shown
    assert main(["diff", str(bert), str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["changed"] == 18


def test_codes_that_were_not_rounded_to_the_nearest_are_quantized_too(tmp_path, bert):
    """As methods leave them that make up for the errors of some weights with others."""

    def change(values):
        values = zoo.int8(values)
        for name, value in values.items():
            if value.dtype == torch.int8:
                values[name] = (
                    (value.int() + torch.arange(value.numel()).view_as(value) % 13 - 6)
                    .clamp(-128, 127)
                    .to(torch.int8)
                )
        return values

    found = diff(bert, zoo.made_from(bert, tmp_path / "m", change)).relation

    assert (found.kind, found.child) == ("quantized", "B")
    assert "not by rounding to the nearest alone" in found.text
