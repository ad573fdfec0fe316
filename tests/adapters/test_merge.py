from __future__ import annotations

import pytest
import torch

from reuselib.adapter import ModelRef
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.errors import IncompatibleStep
from reuselib.testing.tiny import tiny_bert
from reuselib.training.plan import FitPlan

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2)


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"use_dora": True}, {"last_blocks": 1}]
)
def test_folding_in_changes_no_output_beyond_rounding(start, bare_bert, options):
    module, session = start(bare_bert)
    adapted = LoRA(r=2, fit=SHORT, **options).adapt(module, session)
    before = session.logits(adapted.module.eval(), 32)

    merged = Merge().adapt(adapted.module, session)

    change = (session.logits(merged.module, 32) - before).abs().max()
    assert change < 1e-5
    assert merged.metrics["drift_max_abs"] == pytest.approx(float(change), abs=1e-9)
    assert merged.metrics["drift_num_rows"] == 32
    assert type(merged.module).__name__ == "BertForSequenceClassification"


def test_folding_in_needs_an_adapter():
    with pytest.raises(IncompatibleStep, match="folds a LoRA adapter") as caught:
        Merge().follow("dense")
    assert "lora" in caught.value.fix


def test_averaging_needs_whole_models():
    with pytest.raises(IncompatibleStep, match="'adapter'"):
        Merge(models=(ModelRef("./other"),)).follow("adapter")


def test_the_average_is_that_of_every_weight(start, bert, tmp_path):
    other = tiny_bert(tmp_path / "other", head=True, num_layers=3, seed=5)
    module, session = start(bert)
    mine = {n: v.double().clone() for n, v in module.state_dict().items()}
    theirs = {n: v.double() for n, v in start(other)[0].state_dict().items()}

    merged = Merge(models=(ModelRef(str(other)),), weights=(0.25, 0.75)).adapt(module, session)

    for name, value in merged.module.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(
                value.double(), 0.25 * mine[name] + 0.75 * theirs[name], atol=1e-7
            )
        else:
            assert value.equal(module.state_dict()[name])


def test_shares_are_equal_by_default():
    assert Merge(models=(ModelRef("a"), ModelRef("b"))).shares == (1 / 3, 1 / 3, 1 / 3)


def test_models_of_another_shape_are_refused(start, bert, tmp_path):
    other = tiny_bert(tmp_path / "other", head=True, num_layers=2)
    module, session = start(bert)

    with pytest.raises(IncompatibleStep, match=r"differ at tensor bert\.encoder\.layer\.2"):
        Merge(models=(ModelRef(str(other)),)).adapt(module, session)


def test_a_model_without_a_head_is_refused(start, bert, bare_bert):
    module, session = start(bert)

    with pytest.raises(IncompatibleStep, match="no weights for classifier"):
        Merge(models=(ModelRef(str(bare_bert)),)).adapt(module, session)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": (0.5, 0.5)}, "no effect"),
        ({"models": (ModelRef("a"),), "weights": (1.0,)}, "2 numbers"),
        ({"models": (ModelRef("a"),), "weights": (1.0, 0.5)}, "add up to 1"),
    ],
)
def test_weights_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Merge(**options)


class TestProofOfFolding:
    """One forged child a claim."""

    structure = {
        "targets": ["q"],
        "transposed": [],
        "replaced": ["head"],
        "scale": 2.0,
        "dora": False,
    }

    def parent(self):
        torch.manual_seed(0)
        return {
            "q.weight": torch.randn(6, 4),
            "k.weight": torch.randn(6, 4),
            "base_model.model.q.lora_A.weight": torch.randn(2, 4),
            "base_model.model.q.lora_B.weight": torch.randn(6, 2),
            "base_model.model.head.weight": torch.randn(2, 6),
        }

    def honest(self):
        parent = self.parent()
        a, b = (parent[f"base_model.model.q.lora_{side}.weight"] for side in "AB")
        return {
            "q.weight": parent["q.weight"] + 2.0 * b @ a,
            "k.weight": parent["k.weight"],
            "head.weight": parent["base_model.model.head.weight"],
        }

    def failing(self, child, parent=None):
        findings = Merge().prove([parent or self.parent()], child, self.structure)
        return [finding.tensor for finding in findings if finding.holds is False]

    def test_an_honest_child_passes(self):
        assert self.failing(self.honest()) == []

    @pytest.mark.parametrize("name", ["k.weight", "head.weight"])
    def test_a_tensor_that_should_be_a_copy_moved_by_a_millionth_fails(self, name):
        child = self.honest()
        child[name] = child[name] + 1e-6
        assert self.failing(child) == [name]

    def test_a_merged_delta_that_was_scaled_fails(self):
        child = self.honest()
        base = self.parent()["q.weight"]
        child["q.weight"] = base + 1.001 * (child["q.weight"] - base)
        assert self.failing(child) == ["q.weight"]

    def test_a_nan_fails(self):
        child = self.honest()
        child["q.weight"][0, 0] = float("nan")
        assert self.failing(child) == ["q.weight"]

    def test_another_base_of_equal_shape_fails(self):
        parent = {**self.parent(), "q.weight": torch.zeros(6, 4), "k.weight": torch.zeros(6, 4)}
        assert self.failing(self.honest(), parent) == ["k.weight", "q.weight"]

    def test_a_lost_tensor_fails(self):
        child = self.honest()
        del child["k.weight"]
        assert self.failing(child) == ["k.weight"]

    def test_square_layers_that_are_kept_transposed_are_told_apart(self):
        torch.manual_seed(1)
        base, a, b = torch.randn(4, 4), torch.randn(2, 4), torch.randn(4, 2)
        parent = {
            "q.weight": base,
            "base_model.model.q.lora_A.weight": a,
            "base_model.model.q.lora_B.weight": b,
        }
        structure = {**self.structure, "replaced": [], "transposed": ["q"]}
        right, wrong = base + 2.0 * (b @ a).T, base + 2.0 * b @ a

        def holds(value):
            return all(f.holds for f in Merge().prove([parent], {"q.weight": value}, structure))

        assert holds(right)
        assert not holds(wrong)


class TestProofOfAveraging:
    adapter = Merge(models=(ModelRef("other"),), weights=(0.25, 0.75))
    structure = {"averaged": ["w"]}
    mine = {"w": torch.tensor([1.0, 2.0]), "i": torch.tensor([3])}
    other = {"w": torch.tensor([5.0, -2.0]), "i": torch.tensor([3])}

    def failing(self, child, parents=None):
        findings = self.adapter.prove(parents or [self.mine, self.other], child, self.structure)
        return [finding for finding in findings if finding.holds is not True]

    def test_an_honest_child_passes(self):
        assert self.failing({"w": torch.tensor([4.0, -1.0]), "i": torch.tensor([3])}) == []

    def test_other_shares_fail(self):
        child = {"w": torch.tensor([3.0, 0.0]), "i": torch.tensor([3])}
        assert [finding.tensor for finding in self.failing(child)] == ["w"]

    def test_without_every_parent_it_cannot_be_checked(self):
        child = {"w": torch.tensor([4.0, -1.0]), "i": torch.tensor([3])}
        (finding,) = self.failing(child, [self.mine])
        assert finding.holds is None
        assert finding.detail == "1 of 2 models are at hand"


def test_a_gpt2_whose_layers_are_kept_transposed_is_folded_in_and_proven(tmp_path):
    """Conv1D stores [in, out]; the square ones look the same both ways."""
    from reuselib.data import Splits
    from reuselib.derivation.derive import Runtime, derive
    from reuselib.evidence.prove import prove_step
    from reuselib.lineage.store import Store
    from reuselib.tasks.causal_lm import CausalLM
    from reuselib.testing.tiny import tiny_gpt2, tiny_rows

    texts = [{"text": row["text"]} for row in tiny_rows(32)]
    child = derive(
        tiny_gpt2(tmp_path / "base"),
        [LoRA(r=2, fit=SHORT), Merge()],  # its only layer of type Linear is the head, which is tied
        task=CausalLM(),
        data=Splits.of(texts),
        runtime=Runtime(store=tmp_path / "store"),
    )

    findings = prove_step(child.folder, store=Store(tmp_path / "store")).findings

    assert len(findings) == 8
    assert all(finding.holds for finding in findings), findings


def test_a_fine_tuned_model_cannot_be_folded():
    with pytest.raises(IncompatibleStep):
        Merge().follow(FineTune().follow("dense"))
