from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from reuselib.adapters.lora import LoRA
from reuselib.errors import IncompatibleStep, IntegrityError
from reuselib.training.plan import FitPlan

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2)


def test_the_base_is_frozen_and_a_new_head_is_trained(start, bare_bert):
    module, session = start(bare_bert)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    adapted = LoRA(r=2, fit=SHORT).adapt(module, session)

    state = adapted.module.get_base_model().state_dict()
    for name, value in before.items():
        inner = name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
        if name.startswith("classifier"):
            kept = name.replace("classifier.", "classifier.modules_to_save.default.")
            assert not state[kept].equal(value)
        else:
            assert state.get(inner, state.get(name)).equal(value)
    assert adapted.structure["saved"] == ["classifier.bias", "classifier.weight"]


def test_a_head_that_the_base_has_stays_frozen(start, bert):
    module, session = start(bert)

    adapted = LoRA(r=2, fit=SHORT).adapt(module, session)

    assert adapted.structure["saved"] == []
    assert not any(
        "classifier" in n for n, p in adapted.module.named_parameters() if p.requires_grad
    )


def test_only_the_last_blocks_are_adapted_when_told(start, bert):
    module, session = start(bert)

    adapted = LoRA(r=2, last_blocks=1, fit=SHORT).adapt(module, session)

    assert adapted.structure["targets"]
    assert all(".layer.2." in target for target in adapted.structure["targets"])


def test_an_untrained_update_changes_no_output(start, bert):
    module, session = start(bert)
    before = session.logits(module, 8)
    structure = {"targets": ["bert.encoder.layer.0.attention.self.query"], "saved": []}

    rebuilt = LoRA(r=4).rebuild(module, structure)

    assert session.logits(rebuilt, 8).equal(before)


@pytest.mark.parametrize(
    ("options", "scale"), [({}, 2.0), ({"lora_alpha": 4}, 1.0), ({"use_rslora": True}, 4.0)]
)
def test_the_update_is_the_scaled_product_of_its_factors(start, bert, options, scale):
    module, _ = start(bert)
    name = "bert.encoder.layer.0.intermediate.dense"
    weight, bias = (
        getattr(module.get_submodule(name), part).clone() for part in ("weight", "bias")
    )
    rebuilt = LoRA(r=4, **options).rebuild(module, {"targets": [name], "saved": []})
    layer = rebuilt.get_base_model().get_submodule(name)
    b, a = layer.lora_B["default"].weight, layer.lora_A["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(5, weight.shape[1])

    got = layer(x)

    wanted = x @ (weight + scale * b @ a).T + bias
    assert torch.allclose(got, wanted, atol=1e-5)


def test_targets_that_are_only_the_head_are_refused(start, bert):
    module, session = start(bert)

    with pytest.raises(IncompatibleStep, match="nothing but the head"):
        LoRA(target_modules=("classifier",), fit=SHORT).adapt(module, session)


def test_layers_without_a_low_rank_form_are_refused(start, bert):
    module, session = start(bert)

    with pytest.raises(IncompatibleStep, match="LayerNorm"):
        LoRA(target_modules=("op:LayerNorm",), fit=SHORT).adapt(module, session)


@pytest.mark.parametrize("options", [{"r": 0}, {"last_blocks": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LoRA(**options)


def test_an_adapter_over_an_adapter_is_refused_with_the_way_out():
    with pytest.raises(IncompatibleStep, match="'lora'") as caught:
        LoRA().follow("adapter")
    assert "merge" in caught.value.fix


class TestFolder:
    """What `save` writes, and what `load` refuses."""

    @pytest.fixture
    def trained(self, start, bare_bert, tmp_path):
        module, session = start(bare_bert)
        adapter = LoRA(r=2, fit=SHORT)
        adapted = adapter.adapt(module, session)
        folder = tmp_path / "child"
        folder.mkdir()
        adapter.save(adapted.module.eval(), folder)
        return adapter, adapted, folder, session

    def again(self, trained, start, bare_bert):
        adapter, adapted, folder, _ = trained
        module, _ = start(bare_bert)
        rebuilt = adapter.rebuild(module, adapted.structure)
        adapter.load(rebuilt, folder)
        return rebuilt.eval()

    def test_it_holds_the_adapter_and_no_path(self, trained, bare_bert):
        folder = trained[2]
        assert sorted(p.name for p in folder.iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        assert (
            json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
            is None
        )
        assert str(bare_bert) not in (folder / "adapter_config.json").read_text()

    def test_it_loads_to_equal_outputs(self, trained, start, bare_bert):
        rebuilt = self.again(trained, start, bare_bert)
        _, adapted, _, session = trained
        assert session.logits(rebuilt, 8).equal(session.logits(adapted.module, 8))

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
    def test_plain_peft_loads_it_to_equal_outputs(self, trained, bare_bert):
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification

        _, adapted, folder, session = trained
        base = AutoModelForSequenceClassification.from_pretrained(bare_bert, num_labels=2)
        plain = PeftModel.from_pretrained(base, folder)
        assert session.logits(plain, 8).equal(session.logits(adapted.module, 8))

    @pytest.mark.parametrize("change", ["drop", "add"])
    def test_a_tensor_too_few_or_too_many_is_refused(self, trained, start, bare_bert, change):
        path = trained[2] / "adapter_model.safetensors"
        tensors = load_file(path)
        name = sorted(tensors)[0]
        if change == "drop":
            del tensors[name]
        else:
            tensors[name := "base_model.model.stray.lora_A.weight"] = torch.ones(2, 2)
        save_file(tensors, path)

        with pytest.raises(IntegrityError) as caught:
            self.again(trained, start, bare_bert)
        assert caught.value.tensor == name


class TestProof:
    """One forged child a claim."""

    structure = {"targets": ["q"], "saved": ["head.weight"]}
    parent = {"q.weight": torch.zeros(6, 4)}

    def honest(self):
        return {
            "base_model.model.q.lora_A.weight": torch.ones(2, 4),
            "base_model.model.q.lora_B.weight": torch.ones(6, 2),
            "base_model.model.head.weight": torch.ones(2, 6),
        }

    def failing(self, child, parent=None):
        findings = LoRA(r=2).prove([parent or self.parent], child, self.structure)
        return [finding for finding in findings if finding.holds is False]

    def test_an_honest_child_passes(self):
        assert self.failing(self.honest()) == []

    def test_another_rank_fails(self):
        child = {
            **self.honest(),
            "base_model.model.q.lora_A.weight": torch.ones(3, 4),
            "base_model.model.q.lora_B.weight": torch.ones(6, 3),
        }
        (failed,) = self.failing(child)
        assert "rank 2" in failed.claim
        assert failed.detail == "rank 3"

    def test_a_parent_without_the_layer_fails(self):
        assert self.failing(self.honest(), {"k.weight": torch.zeros(6, 4)})[0].tensor == "q.weight"

    def test_a_parent_of_another_shape_fails(self):
        assert (
            "layer (6, 5)" in self.failing(self.honest(), {"q.weight": torch.zeros(6, 5)})[0].detail
        )

    def test_a_base_weight_smuggled_in_fails(self):
        child = {**self.honest(), "base_model.model.q.base_layer.weight": torch.ones(6, 4)}
        assert self.failing(child)[0].tensor == "base_model.model.q.base_layer.weight"

    def test_a_module_called_new_that_the_base_has_fails(self):
        parent = {**self.parent, "head.weight": torch.zeros(2, 6)}
        assert "new" in self.failing(self.honest(), parent)[0].claim

    def test_a_missing_factor_fails(self):
        child = self.honest()
        del child["base_model.model.q.lora_B.weight"]
        assert self.failing(child)[0].tensor == "base_model.model.q.lora_B.weight"
