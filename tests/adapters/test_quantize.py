from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from reuselib.adapters.lora import LoRA
from reuselib.adapters.quantize import Quantize
from reuselib.calibration.plan import Calibration
from reuselib.data import Data
from reuselib.derivation.derive import Runtime, derive
from reuselib.errors import DataError, IncompatibleStep
from reuselib.evidence.prove import prove_step
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.model.model import Model
from reuselib.model.opening import load_weights
from reuselib.quantization.layers import PackedLinear, QuantizedEmbedding, QuantizedLinear
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing import check_adapter
from reuselib.testing.checking import write_rows
from reuselib.testing.tiny import tiny_gpt2, tiny_llama, tiny_vit
from reuselib.training.plan import FitPlan

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-3)
FEW = Calibration(num_rows=16, batch_size=8)
INT4 = {"scheme": "int4-weight", "group_size": 16}
IDS = torch.tensor([[5, 9, 11, 3, 7], [6, 4, 8, 10, 12]])


def opened(folder, auto):
    return auto.from_pretrained(folder).eval()


def adapted(adapter, module, task=None):
    """For adapters that neither train nor look at data: nothing of a run is needed but the task."""
    return adapter.adapt(
        module, SimpleNamespace(task=task or TextClassification(), fresh=frozenset())
    )


def logits(module, ids=IDS):
    with torch.no_grad():
        return module(ids).logits


def close(got, wanted, share):
    return (got - wanted).norm() <= share * wanted.norm()


@pytest.fixture(scope="module")
def bert_module(bert):
    from transformers import AutoModelForSequenceClassification

    return opened(bert, AutoModelForSequenceClassification)


@pytest.fixture
def module(bert_module):
    return copy.deepcopy(bert_module)


class TestChoice:
    """Which layers are quantized."""

    def test_every_linear_layer_but_the_head(self, module):
        structure = adapted(Quantize(), module).structure

        assert len(structure["layers"]) == 3 * 6 + 1  # of three blocks, and the pooler
        assert "classifier" not in structure["layers"]
        for name in structure["layers"]:
            assert type(module.get_submodule(name)) is QuantizedLinear

    def test_selectors_say_what_to_skip_and_what_differs(self, module):
        adapter = Quantize(
            skip=("pooler",),
            schemes={
                "query": "int4-weight",
                "block[-1:] & output.dense": "none",
                "classifier": "int8",
            },
            group_size=16,
        )

        layers = adapted(adapter, module).structure["layers"]

        assert layers["bert.encoder.layer.0.attention.self.query"] == "int4-weight"
        assert type(module.bert.encoder.layer[0].attention.self.query) is PackedLinear
        assert layers["bert.encoder.layer.1.output.dense"] == "int8"
        assert "bert.encoder.layer.2.output.dense" not in layers
        assert layers["classifier"] == "int8"
        assert "bert.pooler.dense" not in layers

    def test_a_layer_with_random_weights_is_refused(self, start, bare_bert):
        module, session = start(bare_bert)

        with pytest.raises(IncompatibleStep, match="classifier is newly initialised"):
            Quantize(schemes={"classifier": "int8"}).adapt(module, session)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"skip": ("op:Linear",)}, "no linear layer to quantize"),
            ({"skip": ("op:LayerNorm",)}, "names no linear layer"),
            ({"schemes": {"query": "none", "*.query": "int8-weight"}}, "says .* of bert"),
            (
                {"skip": ("query",), "schemes": {"query": "int8-weight"}},
                "in `skip` and in `schemes`",
            ),
            ({"scheme": "int4-weight"}, "group_size=128 does not divide the 32 inputs of bert"),
        ],
    )
    def test_what_cannot_be_is_refused(self, module, options, words):
        with pytest.raises(IncompatibleStep, match=words):
            adapted(Quantize(**options), module)

    def test_a_group_size_that_does_not_divide_comes_with_those_that_do(self, module):
        with pytest.raises(IncompatibleStep) as caught:
            adapted(Quantize(scheme="int4-weight"), module)
        assert caught.value.expected == "for this layer, one of: 32, 16, 8"

    def test_weights_that_are_not_finite_are_refused_by_name(self, module):
        with torch.no_grad():
            module.bert.encoder.layer[1].output.dense.weight[3, 4] = float("nan")

        with pytest.raises(IncompatibleStep, match=r"layer\.1\.output\.dense holds NaN"):
            adapted(Quantize(), module)

    def test_a_network_without_a_table_of_tokens_is_refused(self, tmp_path):
        from transformers import AutoModelForImageClassification

        vit = opened(tiny_vit(tmp_path), AutoModelForImageClassification)

        with pytest.raises(IncompatibleStep, match="no table of tokens"):
            adapted(Quantize(embeddings="int8"), vit, ImageClassification())

    def test_a_network_without_linear_layers_is_refused(self):
        with pytest.raises(IncompatibleStep, match="in this network"):
            adapted(
                Quantize(), nn.Sequential(nn.Conv2d(1, 2, 3)), SimpleNamespace(head=lambda _: ())
            )


class TestOptions:
    """What has no effect, or no meaning, is an error at once."""

    @pytest.mark.parametrize(
        ("options", "key"),
        [
            ({"scheme": "bf16", "embeddings": "int8"}, "embeddings"),
            ({"scheme": "fp16", "fit": SHORT}, "fit"),
            ({"group_size": 32}, "group_size"),
            ({"scheme": "int8-weight", "group_size": 0}, "group_size"),
            ({**INT4, "activations": "tensor"}, "activations"),
            ({**INT4, "smooth": 0.5}, "smooth"),
            ({"smooth": 1.5}, "smooth"),
            ({"smooth": 0.5, "method": "awq"}, "smooth"),
            ({"fit": SHORT, "method": "gptq"}, "fit"),
            ({"calibration": FEW}, "calibration"),
            ({"schemes": {"query": "int2"}}, "int2"),
        ],
    )
    def test_refused(self, options, key):
        with pytest.raises(ValueError, match=key):
            Quantize(**options)

    @pytest.mark.parametrize("form", ["adapter", "quantized", "quantized-adapter", "half"])
    def test_forms_that_cannot_be_quantized(self, form):
        with pytest.raises(IncompatibleStep) as caught:
            Quantize().follow(form)
        assert caught.value.fix

    def test_forms_that_can(self):
        assert Quantize().follow("dense") == Quantize().follow("sparse") == "quantized"
        assert Quantize(scheme="bf16").follow("dense") == "half"


class TestOutputs:
    """The child against what it was made from, and against other readers of its folder."""

    @pytest.mark.parametrize(
        ("adapter", "share"),
        [
            (Quantize(), 0.05),
            (Quantize(activations="tensor"), 0.08),
            (Quantize(scheme="int8-weight"), 0.05),
            (Quantize(embeddings="int8"), 0.05),
            (Quantize(**INT4), 0.5),
        ],
        ids=["token", "tensor", "int8-weight", "embeddings", "int4-weight"],
    )
    def test_outputs_stay_close(self, bert_module, module, adapter, share):
        adapted(adapter, module)

        assert close(logits(module), logits(bert_module), share)

    @pytest.mark.parametrize(
        ("adapter", "exactly"),
        [
            (Quantize(), False),
            (Quantize(activations="tensor"), False),
            (Quantize(scheme="int8-weight", embeddings="int8"), True),
            (Quantize(scheme="int8-weight", group_size=8), True),
            (Quantize(**INT4), True),
            (Quantize(schemes={"query": "int4-weight"}, group_size=16, embeddings="int8"), False),
        ],
        ids=["int8", "tensor", "int8-weight", "int8-groups", "int4-weight", "mixed"],
    )
    def test_plain_transformers_reads_a_bert(self, module, tmp_path, adapter, exactly):
        from transformers import AutoModelForSequenceClassification

        adapted(adapter, module)
        TextClassification().save(module, None, tmp_path / "child")
        plain = opened(tmp_path / "child", AutoModelForSequenceClassification)

        # inputs that lie between two codes may fall to either side
        got, wanted = logits(plain), logits(module)
        assert torch.allclose(got, wanted) if exactly else close(got, wanted, 0.02)
        for name, layer in module.named_modules():
            if isinstance(layer, (QuantizedLinear, PackedLinear, QuantizedEmbedding)):
                assert plain.get_submodule(name).weight.equal(layer.dequantized()), name

    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize(
        "adapter", [Quantize(**INT4), Quantize(**INT4, embeddings="int8")], ids=["linear", "all"]
    )
    def test_plain_transformers_reads_a_llama(self, tmp_path, tied, adapter):
        from transformers import AutoModelForCausalLM

        module = opened(tiny_llama(tmp_path / "base", tied=tied), AutoModelForCausalLM)
        adapted(adapter, module, CausalLM())
        CausalLM().save(module, None, tmp_path / "child")

        plain = opened(tmp_path / "child", AutoModelForCausalLM)

        assert torch.allclose(logits(plain), logits(module), atol=1e-6)

    def test_a_tied_head_shares_the_codes(self, tmp_path):
        from transformers import AutoModelForCausalLM

        dense = opened(tiny_llama(tmp_path / "base"), AutoModelForCausalLM)
        module = copy.deepcopy(dense)

        structure = adapted(Quantize(embeddings="int8"), module, CausalLM()).structure
        CausalLM().save(module, None, tmp_path / "child")

        assert structure["tables"] == [["model.embed_tokens", "lm_head"]]
        assert module.lm_head.weight is module.model.embed_tokens.weight
        assert "lm_head.weight" not in Tensors(tmp_path / "child")
        assert close(logits(module), logits(dense), 0.05)

    def test_the_configuration_says_what_was_done(self, module, tmp_path):
        adapted(Quantize(schemes={"query": "int4-weight"}, group_size=16), module)
        TextClassification().save(module, None, tmp_path)

        said = json.loads((tmp_path / "config.json").read_text())["quantization_config"]

        assert said["format"] == "mixed-precision"
        exception, common = said["config_groups"].values()
        assert exception["targets"] == [
            f"bert.encoder.layer.{i}.attention.self.query" for i in range(3)
        ]
        assert exception["format"] == "pack-quantized"
        assert common["targets"] == ["Linear"]
        assert common["input_activations"]["strategy"] == "token"
        assert said["ignore"] == ["classifier"]

    def test_sixteen_bits_halve_the_file_and_open_anywhere(self, bert_module, module, tmp_path):
        from transformers import AutoModelForSequenceClassification

        child = adapted(Quantize(scheme="bf16"), module)
        copy.deepcopy(child.module).to(torch.bfloat16).save_pretrained(tmp_path)

        plain = opened(tmp_path, AutoModelForSequenceClassification)

        assert child.stock
        assert child.dtype == "bfloat16"
        assert plain.dtype == torch.bfloat16
        assert logits(plain.float()).equal(logits(module))
        assert close(logits(module), logits(bert_module), 0.05)

    def test_values_beyond_half_precision_are_refused(self, module):
        with torch.no_grad():
            module.bert.pooler.dense.weight[0, 0] = 1e5

        with pytest.raises(
            IncompatibleStep, match=r"pooler\.dense\.weight holds values beyond 65504"
        ):
            adapted(Quantize(scheme="fp16"), module)

    @pytest.mark.parametrize("family", ["gpt2", "llama", "vit"])
    def test_a_child_is_rebuilt_from_its_skeleton(self, tmp_path, family):
        build = {"gpt2": tiny_gpt2, "llama": tiny_llama, "vit": tiny_vit}[family]
        task = ImageClassification() if family == "vit" else CausalLM()
        adapter = Quantize() if family == "vit" else Quantize(embeddings="int8")
        loaded = task.load(build(tmp_path / "base"))
        sample = torch.randn(2, 3, 16, 16) if family == "vit" else IDS
        dense = logits(loaded.module, sample)

        child = adapted(adapter, loaded.module, task)
        task.save(child.module, None, tmp_path / "child")
        again = adapter.rebuild(task.skeleton(tmp_path / "child"), child.structure)
        load_weights(again, Tensors(tmp_path / "child"))

        assert logits(again.eval(), sample).equal(logits(child.module, sample))
        assert close(logits(again, sample), dense, 0.15)
        assert bool(child.structure["transposed"]) == (family == "gpt2")


class TestData:
    """Methods that look at rows."""

    @pytest.mark.parametrize("method", ["gptq", "awq"])
    def test_rows_make_outputs_closer_than_rounding_alone(self, start, bert, bert_module, method):
        """Mean squared error of the logits on the rows it was calibrated with; weights of four bits."""
        module, session = start(bert)
        plain = adapted(Quantize(**INT4), copy.deepcopy(module)).module
        chosen = Quantize(**INT4, method=method, calibration=Calibration(num_rows=64)).adapt(
            copy.deepcopy(module), session
        )
        networks = (module, plain, chosen.module)
        errors = torch.zeros(2)
        with torch.no_grad():
            for batch in session.batches(64):
                wanted, *found = [session.task.forward(each, batch) for each in networks]
                errors += torch.stack([(each - wanted).square().sum() for each in found])

        assert errors[1] < errors[0]

    def test_smoothing_alone_changes_no_output_but_for_rounding(self, start, bert):
        module, session = start(bert)
        dense = copy.deepcopy(module)

        child = Quantize(smooth=0.5, calibration=FEW).adapt(module, session)

        assert child.structure["factored"]
        assert close(session.logits(child.module, 8), session.logits(dense, 8), 0.05)

    def test_too_few_rows_are_refused(self, start, bert):
        module, session = start(bert)

        with pytest.raises(
            DataError, match="128 rows of the train split were asked for, but it has 64"
        ):
            Quantize(**INT4, method="gptq").adapt(module, session)

    def test_training_with_rounding_moves_the_weights(self, start, bert):
        module, session = start(bert)
        before = copy.deepcopy(module)

        child = Quantize(fit=SHORT).adapt(module, session)

        assert child.metrics["train_loss"] > 0
        layer = "bert.encoder.layer.0.output.dense"
        assert type(module.get_submodule(layer)) is QuantizedLinear
        moved = module.get_submodule(layer).dequantized() - before.get_submodule(layer).weight
        assert moved.abs().max() > module.get_submodule(layer).weight_scale.max()


def fold(source, target):
    """A record that one layer is rescaled for another."""
    return {
        "source": source,
        "targets": [target],
        "offset": False,
        "matrices": [source, target],
        "transposed": [],
        "exponents": [8] * 32,
    }


class TestProof:
    """One forged child a claim."""

    layer = "bert.encoder.layer.1.output.dense"

    @pytest.fixture
    def case(self, bert_module, module):
        adapter = Quantize(embeddings="int8")
        structure = adapted(adapter, module).structure
        parent = {name: value.clone() for name, value in bert_module.state_dict().items()}
        child = {name: value.clone() for name, value in module.state_dict().items()}
        return adapter, parent, child, structure

    def failing(self, case, child):
        adapter, parent, _, structure = case
        return [each for each in adapter.prove([parent], child, structure) if not each.holds]

    def test_an_honest_child_passes(self, case):
        assert self.failing(case, case[2]) == []

    @pytest.mark.parametrize(
        ("tensor", "forge", "claim"),
        [
            (
                f"{layer}.weight",
                lambda t: t.index_put((torch.tensor(0), torch.tensor(0)), t[0, 0] // 2 + 3),
                "nearest",
            ),
            (f"{layer}.weight_scale", lambda t: t * (1 + 1e-6), "nearest"),
            (f"{layer}.weight_scale", lambda t: -t, "grid"),
            (f"{layer}.weight", lambda t: torch.full_like(t, 127), "grid"),
            (f"{layer}.weight", lambda t: t.float(), "shape"),
            (f"{layer}.bias", lambda t: t + 1e-6, "bit-equal"),
            ("bert.embeddings.word_embeddings.weight", lambda t: t.flip(0), "nearest"),
            ("classifier.weight", lambda t: t * 2, "bit-equal"),
        ],
    )
    def test_a_forged_tensor_fails(self, case, tensor, forge, claim):
        child = {**case[2], tensor: forge(case[2][tensor])}

        failed = self.failing(case, child)

        assert claim in failed[0].claim
        assert failed[0].tensor.startswith(tensor.rpartition(".")[0])

    @pytest.mark.parametrize(
        ("forge", "claim"),
        [
            ({"new": ["classifier.weight"]}, "new"),
            ({"layers": {}}, "configuration"),
            ({"layers": {layer: "int8-weight"}}, "configuration"),
            ({"layers": {layer: "bf16"}}, "configuration"),
            ({"tables": []}, "configuration"),
            ({"factored": [fold("bert.pooler.dense", layer)]}, "configuration"),
        ],
    )
    def test_a_forged_record_fails(self, case, forge, claim):
        adapter, parent, child, structure = case

        failed = self.failing((adapter, parent, child, {**structure, **forge}), child)

        assert claim in failed[0].claim

    def test_a_channel_rescaled_for_nothing_fails(self, case):
        _, parent, child, structure = case
        unused = fold("bert.pooler.dense", "classifier")
        forged = {**structure, "factored": [unused], "changes": {}}
        adapter = Quantize(embeddings="int8", method="awq")

        assert "rescaled" in self.failing((adapter, parent, child, forged), child)[0].detail

    def test_a_tensor_said_to_be_new_is_not_spared_the_cast(self, case):
        parent = case[1]
        child = {name: torch.zeros_like(value) for name, value in parent.items()}

        failed = self.failing((Quantize(scheme="bf16"), parent, child, {"new": [*child]}), child)

        assert "new" in failed[0].claim

    def test_a_missing_tensor_fails(self, case):
        child = {
            name: value for name, value in case[2].items() if name != f"{self.layer}.weight_scale"
        }

        assert self.failing(case, child)[0].tensor == f"{self.layer}.weight_scale"

    def test_another_parent_fails(self, case):
        adapter, parent, child, structure = case
        other = {**parent, f"{self.layer}.weight": parent[f"{self.layer}.weight"] + 0.01}

        assert not all(each.holds for each in adapter.prove([other], child, structure))

    def test_calibrated_weights_stay_within_the_recorded_bound(self, start, bert):
        module, session = start(bert)
        parent = {name: value.clone() for name, value in module.state_dict().items()}
        adapter = Quantize(**INT4, method="gptq", calibration=FEW)
        structure = adapter.adapt(module, session).structure
        child = {name: value.clone() for name, value in module.state_dict().items()}
        forged = {
            **child,
            f"{self.layer}.weight_packed": child[f"{self.layer}.weight_packed"].flip(1),
        }

        findings = list(adapter.prove([parent], child, structure))
        assert [each.claim for each in findings if not each.holds] == [
            "the other codes are those that calibration rows call for"
        ]
        failed = [each for each in adapter.prove([parent], forged, structure) if not each.holds]
        assert "as close" in failed[0].claim


def children(tmp_path, base, *steps):
    data = (
        write_rows(tmp_path / "rows")
        if not (tmp_path / "rows").exists()
        else Data(source=str(tmp_path / "rows"))
    )
    runtime = Runtime(store=tmp_path / "store", output=tmp_path / "out")
    return derive(base, list(steps), task=TextClassification(), data=data, runtime=runtime)


def test_a_derived_child_is_small_reopens_and_is_proven(bert, tmp_path):
    child = children(tmp_path, bert, Quantize(embeddings="int8"))
    ids = [{"text": "a good day"}, {"text": "the film was so bad"}]

    again = Model.load(tmp_path / "out", store=tmp_path / "store")

    assert again.logits(ids).equal(child.logits(ids))
    assert all(
        each.holds
        for each in prove_step(tmp_path / "out", store=Store(tmp_path / "store")).findings
    )
    assert (
        again.figures.step["layers_on_fbgemm"] == 19
        or "layers_on_dequantized" in again.figures.step
    )
    weights = Tensors(tmp_path / "out")
    dense = Tensors(bert)
    layer = "bert.encoder.layer.0.output.dense.weight"
    assert weights[layer].nbytes == dense[layer].nbytes / 4


def test_a_half_child_reopens_and_is_proven(bert, tmp_path):
    child = children(tmp_path, bert, Quantize(scheme="fp16"))
    ids = [{"text": "a good day"}]

    again = Model.load(tmp_path / "out", store=tmp_path / "store")

    assert again.logits(ids).equal(child.logits(ids))
    assert all(
        each.holds
        for each in prove_step(tmp_path / "out", store=Store(tmp_path / "store")).findings
    )
    assert {str(value.dtype) for _, value in Tensors(tmp_path / "out").items()} == {"torch.float16"}


@pytest.mark.parametrize(
    "base", [Quantize(), Quantize(**INT4, embeddings="int8")], ids=["int8", "int4-weight"]
)
def test_low_rank_updates_are_learned_over_quantized_layers(bert, tmp_path, base):
    child = children(tmp_path, bert, base, LoRA(r=2, fit=SHORT))
    ids = [{"text": "a good day"}]

    again = Model.load(tmp_path / "out", store=tmp_path / "store")

    assert again.logits(ids).equal(child.logits(ids))
    assert all(
        each.holds
        for each in prove_step(tmp_path / "out", store=Store(tmp_path / "store")).findings
    )
    updates = Tensors(tmp_path / "out")
    assert all("lora_" in name for name in updates)
    assert any(updates[name].abs().max() > 0 for name in updates if "lora_B" in name)


def test_magnitude_and_direction_over_integers_are_refused(start, bert):
    module, session = start(bert)
    adapted(Quantize(), module)

    with pytest.raises(IncompatibleStep, match="use_dora"):
        LoRA(use_dora=True).adapt(module, session)


@pytest.mark.parametrize(
    "adapter",
    [
        Quantize(smooth=0.5, method="gptq", embeddings="int8", calibration=FEW),
        Quantize(**INT4, method="awq", calibration=FEW),
        Quantize(**INT4, fit=SHORT),
        Quantize(scheme="bf16"),
    ],
    ids=["gptq", "awq", "trained", "bf16"],
)
def test_other_settings_keep_the_laws_too(adapter):
    check_adapter(adapter, laws=["same", "rebuild", "circle", "proof"])
