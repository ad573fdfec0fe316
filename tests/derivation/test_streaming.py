"""A step made tensor by tensor gives what the same step gives in memory, file by file and byte by byte."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import zoo
from chains import text_rows
from reuselib.adapter import Adapter, ModelRef
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.derivation import execution, streaming
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import Child, execute
from reuselib.derivation.plan import plan
from reuselib.errors import GateFailed, IncompatibleStep, StoreError
from reuselib.evidence.prove import prove
from reuselib.lineage.store import Store
from reuselib.measure.gates import Gate
from reuselib.model.opening import Opened, open_network
from reuselib.model.sketching import open_sketch
from reuselib.tasks import sharding
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing import tiny
from reuselib.training.plan import FitPlan

LM = CausalLM(max_length=32)
SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2)


class Ways:
    """Carries out steps in memory or tensor by tensor, and knows of each which it was."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.sketched: list[bool] = []

    def run(self, base: Any, *steps: Adapter, streamed: bool, task: Any = LM, data: Any = None):
        real = streaming.sketch_for

        def sketch_for(*inputs: Any) -> Opened | None:
            found = real(*inputs) if streamed else None
            self.sketched.append(found is not None)
            return found

        self.patch.setattr(execution, "sketch_for", sketch_for)
        self.patch.setattr(streaming, "fits", lambda *_: not streamed)
        store = self.folder / ("streamed" if streamed else "in-memory")
        settled = plan(base, steps, task=task, data=data, store=store)
        return execute(settled, Runtime()).children[-1]

    def both(self, base: Any, *steps: Adapter, **options: Any) -> tuple[Child, Child]:
        return (
            self.run(base, *steps, streamed=False, **options),
            self.run(base, *steps, streamed=True, **options),
        )


@pytest.fixture
def ways(tmp_path, monkeypatch) -> Ways:
    return Ways(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "tied": tiny.tiny_llama(folder / "tied"),
        "untied": tiny.tiny_llama(folder / "untied", tied=False),
        "gpt2": tiny.tiny_gpt2(folder / "gpt2"),
    }


def files(folder: Path) -> dict[str, bytes]:
    """All but the record, which holds times."""
    return {
        each.name: each.read_bytes()
        for each in folder.iterdir()
        if each.name != "README.md" and each.is_file()
    }


def assert_same(one: Child, other: Child) -> None:
    assert files(one.folder) == files(other.folder)
    assert one.manifest.digests == other.manifest.digests
    assert one.manifest.definition == other.manifest.definition
    told = [json.loads((each.folder / "lineage/metrics.json").read_text()) for each in (one, other)]
    for figures in told:
        del figures["cost"]["seconds"], figures["cost"]["peak_bytes"]
    assert told[0] == told[1]


STEPS = {
    "int8": Quantize(),
    "int4": Quantize(scheme="int4-weight", group_size=16, schemes={"*.mlp.*": "int8"}),
    "table": Quantize(embeddings="int8"),
    "bf16": Quantize(scheme="bf16"),
    "fp16": Quantize(scheme="fp16"),
    "half of it": Sparsify(sparsity=0.5),
    "2:4": Sparsify(pattern="2:4"),
}


@pytest.mark.parametrize("name", ["tied", "untied", "gpt2"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_both_ways_give_the_same_bytes_and_record(ways, bases, name, step):
    in_memory, streamed = ways.both(bases[name], step)

    assert_same(in_memory, streamed)
    assert ways.sketched == [False, True]


def test_a_parent_in_shards_and_a_child_in_shards(ways, bases, tmp_path, monkeypatch):
    base = tmp_path / "sharded"
    module = AutoModelForCausalLM.from_pretrained(bases["untied"])
    module.save_pretrained(base, max_shard_size="20KB")
    for each in bases["untied"].glob("tokenizer*"):
        (base / each.name).write_bytes(each.read_bytes())
    monkeypatch.setattr(sharding, "SHARD", "30KB")
    monkeypatch.setattr("reuselib.tasks.pretrained.SHARD", "30KB")

    in_memory, streamed = ways.both(base, Sparsify(sparsity=0.5))

    assert (streamed.folder / "model.safetensors.index.json").exists()
    assert len([*base.glob("*.safetensors")]) > 2
    assert_same(in_memory, streamed)


def test_a_parent_in_16_bits_is_worked_on_in_32(ways, bases, tmp_path):
    base = tmp_path / "bf16"
    AutoModelForCausalLM.from_pretrained(bases["tied"], dtype=torch.bfloat16).save_pretrained(base)
    for each in bases["tied"].glob("tokenizer*"):
        (base / each.name).write_bytes(each.read_bytes())

    assert_same(*ways.both(base, Quantize()))


@pytest.mark.parametrize(
    "name", [n for n in zoo.FAMILIES if n in ("qwen3", "gemma", "phi3", "mistral")]
)
def test_families_of_decoders(ways, bases, tmp_path, name):
    base = tmp_path / "base"
    zoo.network(name).save_pretrained(base)
    for each in bases["tied"].glob("tokenizer*"):
        (base / each.name).write_bytes(each.read_bytes())

    assert_same(*ways.both(base, Quantize()))
    assert ways.sketched == [False, True]


@pytest.mark.parametrize("build", [tiny.tiny_vit, tiny.tiny_resnet, tiny.tiny_mobilenet])
def test_networks_for_images(ways, tmp_path, build):
    task = ImageClassification(labels=("a", "b"))

    assert_same(*ways.both(build(tmp_path / "base"), Sparsify(sparsity=0.5), task=task))
    assert ways.sketched == [False, True]


def test_a_classifier_of_texts_and_a_pruned_parent(ways, tmp_path):
    base, task = (
        tiny.tiny_bert(tmp_path / "base", head=True),
        TextClassification(labels=("bad", "good")),
    )
    pruned = ways.run(base, Prune(ffn=0.5), streamed=False, task=task)
    origin = pruned.manifest.parents[0].digests.dir_hash
    Store(tmp_path / "streamed").remember_root(origin, base)
    ways.sketched.clear()

    assert_same(*ways.both(str(pruned.folder), Quantize(), task=task))
    assert ways.sketched == [False, True]


@pytest.mark.parametrize(
    "lora",
    [
        LoRA(r=2, fit=SHORT),
        LoRA(r=2, use_dora=True, fit=SHORT),
        LoRA(r=3, use_rslora=True, fit=SHORT),
    ],
    ids=["plain", "dora", "rslora"],
)
def test_a_low_rank_update_is_folded_in(ways, tmp_path, lora):
    """Its base has no head: that came with the adapter."""
    options = {"task": TextClassification(), "data": text_rows()}
    base = tiny.tiny_bert(tmp_path / "base")
    in_memory = ways.run(base, lora, Merge(), streamed=False, **options)
    ways.run(base, lora, streamed=True, **options)
    ways.sketched.clear()

    streamed = ways.run(base, lora, Merge(), streamed=True, **options)

    assert ways.sketched == [True]
    assert files(streamed.folder) == files(in_memory.folder)
    assert streamed.manifest.definition.internal == in_memory.manifest.definition.internal
    figures = json.loads((streamed.folder / "lineage/metrics.json").read_text())
    assert figures["protocol"] == {"missing": streaming.UNMEASURED}
    assert figures["after"] == figures["step"] == figures["quality"] == {}
    assert figures["cost"]["num_bytes"] > 0
    assert prove(streamed.folder, store=tmp_path / "streamed").tier == "proven"


def test_models_are_averaged(ways, bases, tmp_path):
    other = tiny.tiny_llama(tmp_path / "other", seed=1)
    step = Merge(models=(ModelRef(str(other)),), weights=(0.3, 0.7))

    assert_same(*ways.both(bases["tied"], step))


def test_models_of_another_shape_are_not_averaged(ways, bases, tmp_path):
    other = tiny.tiny_llama(tmp_path / "other", num_layers=3)

    with pytest.raises(IncompatibleStep, match="differ at tensor"):
        ways.run(bases["tied"], Merge(models=(ModelRef(str(other)),)), streamed=True)


def test_a_base_that_lacks_its_head_is_opened_for_good(ways, tmp_path):
    task = TextClassification(labels=("bad", "good"))

    ways.run(tiny.tiny_bert(tmp_path / "base"), Sparsify(sparsity=0.5), streamed=True, task=task)

    assert ways.sketched == [False]


def test_a_head_for_other_labels_is_opened_for_good(ways, tmp_path):
    """It has the shape, but its weights mean something else."""
    base = tiny.tiny_bert(tmp_path / "base", head=True)
    config = json.loads((base / "config.json").read_text())
    config |= {"id2label": {"0": "ham", "1": "spam"}, "label2id": {"ham": 0, "spam": 1}}
    (base / "config.json").write_text(json.dumps(config))

    found = open_sketch(base, TextClassification(labels=("bad", "good")), Store(tmp_path / "store"))

    assert found is not None
    assert found.fresh == {"classifier.weight", "classifier.bias"}


def test_a_sketch_holds_what_opening_gives(bases, tmp_path):
    store = Store(tmp_path / "store")
    for base in bases.values():
        sketch, opened = open_sketch(base, LM, store), open_network(base, LM, store)

        assert sketch is not None
        state = opened.module.state_dict()
        assert set(sketch.weights) == set(state)
        assert all(torch.equal(sketch.weights[name], value) for name, value in state.items())
        assert all(each.is_meta for each in sketch.module.parameters())


def test_a_folder_that_lacks_a_tensor_is_left_to_opening(bases, tmp_path):
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    base.mkdir()
    for each in bases["untied"].iterdir():
        (base / each.name).write_bytes(each.read_bytes())
    tensors = load_file(base / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})

    assert open_sketch(base, LM, Store(tmp_path / "store")) is None


def test_the_way_follows_from_rows_and_memory(bases, tmp_path, monkeypatch):
    def ways_of(room: int | None, data: Any, step: Adapter) -> bool:
        monkeypatch.setattr(streaming, "available", lambda: room)
        settled = plan(bases["tied"], step, task=LM, data=data, store=tmp_path / "store")
        return streaming.sketch_for(settled, step, settled.base) is not None

    step, num_bytes = (
        Quantize(),
        4 * streaming.num_weights(bases["tied"], Store(tmp_path / "store")),
    )
    assert num_bytes == 4 * 19328
    assert ways_of(10 * num_bytes, None, step)
    assert not ways_of(None, text_rows(), step)
    assert not ways_of(3 * num_bytes, text_rows(), step)
    assert ways_of(3 * num_bytes - 1, text_rows(), step)
    assert not ways_of(0, text_rows(), Quantize(method="gptq"))


def test_nothing_is_left_of_a_child_for_which_there_is_no_room(ways, bases, tmp_path, monkeypatch):
    from reuselib.lineage import layout

    monkeypatch.setattr(
        layout, "_require_room", lambda *_: (_ for _ in ()).throw(StoreError("full"))
    )

    with pytest.raises(StoreError, match="full"):
        ways.run(bases["tied"], Quantize(), streamed=True)

    assert not [*(tmp_path / "streamed" / "models").glob("*")]
    assert not [each for each in (tmp_path / "streamed" / "tmp").glob("*") if each.is_dir()]


def test_nothing_is_left_of_a_child_when_the_disk_fills_up(ways, bases, tmp_path, monkeypatch):
    from reuselib.lineage import layout

    real, written = layout.raw_bytes, list[int]()

    def filling(tensor: torch.Tensor) -> Any:
        written.append(tensor.nbytes)
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(tensor)

    with monkeypatch.context() as patch:
        patch.setattr(layout, "raw_bytes", filling)
        with pytest.raises(StoreError, match="space"):
            ways.run(bases["tied"], Quantize(), streamed=True)

    assert not [*(tmp_path / "streamed" / "models").glob("*")]
    assert not [each for each in (tmp_path / "streamed" / "tmp").glob("*") if each.is_dir()]
    one, other = ways.both(bases["tied"], Quantize())
    assert files(one.folder) == files(other.folder)


def test_a_gate_on_what_was_not_measured_says_why(ways, bases, tmp_path):
    settled = plan(
        bases["tied"],
        Quantize(),
        task=LM,
        data=text_rows(),
        gates=(Gate(figure="perplexity", max=1e9),),
        store=tmp_path / "store",
    )
    ways.patch.setattr(streaming, "fits", lambda *_: False)

    with pytest.raises(GateFailed) as caught:
        execute(settled, Runtime())

    assert caught.value.fix.startswith(streaming.UNMEASURED)


@pytest.mark.parametrize("name", ["quantize", "sparsify", "average"])
def test_sharded_parents_in_16_bits(ways, bases, tmp_path, name):
    steps = {
        "quantize": Quantize(embeddings="int8"),
        "sparsify": Sparsify(sparsity=0.5),
        "average": Merge(models=(ModelRef(str(bases["tied"])),)),
    }
    module = AutoModelForCausalLM.from_pretrained(bases["tied"], dtype=torch.bfloat16)
    module.save_pretrained(tmp_path / "parent", max_shard_size="20KB")
    for each in bases["tied"].glob("tokenizer*"):
        (tmp_path / "parent" / each.name).write_bytes(each.read_bytes())
    assert len([*(tmp_path / "parent").glob("*.safetensors")]) > 1

    assert_same(*ways.both(tmp_path / "parent", steps[name]))

    assert ways.sketched == [False, True]


def test_values_too_large_for_16_bits_are_refused(ways, bases, tmp_path):
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    base.mkdir()
    for each in bases["tied"].iterdir():
        (base / each.name).write_bytes(each.read_bytes())
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][0] = 1e6
    save_file(tensors, base / "model.safetensors", {"format": "pt"})

    with pytest.raises(IncompatibleStep, match="beyond 65504"):
        ways.run(base, Quantize(scheme="fp16"), streamed=True)
