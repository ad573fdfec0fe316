from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from chains import other_labels, run, text_rows
from reuselib.adapter import ModelRef
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.adapters.sparsify import Sparsify
from reuselib.calibration.plan import Calibration
from reuselib.data import Splits
from reuselib.derivation.plan import plan
from reuselib.derivation.rehearsal import rehearse
from reuselib.errors import DataError, IncompatibleStep
from reuselib.evidence.prove import claims, prove_step
from reuselib.lineage.store import Store
from reuselib.pruning.masks import Quota
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_gpt2, tiny_images, tiny_resnet, tiny_rows
from reuselib.training.plan import FitPlan

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2)


def zeros(weight):
    return int((weight == 0).sum())


def test_the_smallest_weights_of_each_layer_go(start, bert):
    module, session = start(bert)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    adapted = Sparsify(sparsity=0.3).adapt(module, session)

    targets = adapted.structure["zeros"]
    assert (
        len(targets) == 3 * 6
    )  # query, key, value, output and two of the feed-forward in each block
    for name, value in module.state_dict().items():
        if name not in targets:
            assert value.equal(before[name])
            continue
        number = round(0.3 * value.numel())
        assert zeros(value) == targets[name] == number
        order = before[name].abs().flatten().sort().values
        kept = value != 0
        assert value[kept].equal(before[name][kept])
        assert value[kept].abs().min() >= order[number - 1]
    assert adapted.metrics["sparsity"] == pytest.approx(0.3, abs=1e-3)


def test_the_pattern_holds_along_the_inputs_also_where_they_come_first(tmp_path):
    """GPT-2 keeps its weights as [in, out]."""
    texts = Splits.of([{"text": row["text"]} for row in tiny_rows(32)])
    step = Sparsify(pattern="2:4")

    child = run(step, tiny_gpt2(tmp_path / "gpt2"), tmp_path / "s", data=texts, task=CausalLM())

    module = child.model().module
    name, layer = "transformer.h.0.mlp.c_fc", module.transformer.h[0].mlp.c_fc
    assert layer.weight.shape == (32, 128)
    assert bool(((layer.weight.T.reshape(-1, 4) != 0).sum(dim=1) == 2).all())
    assert not bool(((layer.weight.reshape(-1, 4) != 0).sum(dim=1) <= 2).all())
    internal = child.children[0].manifest.definition.internal
    assert f"{name}.weight" in internal.structure["transposed"]
    assert internal.form == "sparse"


def test_convolutions_are_seen_as_matrices(tmp_path):
    images = tiny_images(16, size=16)
    rows = Splits.of(images, images[:8])
    step = Sparsify(pattern="4:8")
    base = tiny_resnet(tmp_path / "resnet")

    child = run(
        step, base, tmp_path / "store", data=rows, task=ImageClassification(size=16)
    ).children[0]

    targets = child.manifest.definition.internal.structure["zeros"]
    kernels = [name for name in targets if name.endswith("layer.0.convolution.weight")]
    weights = claims(child.folder, Store(tmp_path / "store")).child
    assert kernels
    for name in kernels:
        rows_of_kernel = weights[name].flatten(1).reshape(-1, 8)
        assert bool(((rows_of_kernel != 0).sum(dim=1) == 4).all())
    assert not any(
        name.startswith("classifier") or ".embedder.embedder" in name for name in targets
    )


def test_the_head_stays_whatever_is_selected(start, bert):
    module, session = start(bert)
    adapted = Sparsify(sparsity=0.5, target_modules=("op:Linear",)).adapt(module, session)
    assert "classifier.weight" not in adapted.structure["zeros"]
    assert "bert.pooler.dense.weight" in adapted.structure["zeros"]


def test_more_zeros_may_follow(start, bert):
    module, session = start(bert)
    Sparsify(sparsity=0.25).adapt(module, session)
    few = module.bert.encoder.layer[0].output.dense.weight.detach() == 0

    adapted = Sparsify(sparsity=0.5).adapt(module, session)

    many = module.bert.encoder.layer[0].output.dense.weight.detach() == 0
    assert adapted.metrics["sparsity"] == pytest.approx(0.5)
    assert bool(many[few].all())


FEW = Calibration(num_rows=32, batch_size=16)
CALIBRATED = pytest.mark.parametrize(
    "step",
    [
        Sparsify(sparsity=0.6, method="wanda", calibration=FEW),
        Sparsify(sparsity=0.6, method="sparsegpt", calibration=FEW),
        Sparsify(pattern="2:4", method="wanda", calibration=FEW),
        Sparsify(pattern="4:8", method="sparsegpt", calibration=FEW),
    ],
    ids=lambda step: f"{step.method}-{step.pattern or step.sparsity}",
)


@CALIBRATED
def test_calibrated_methods_are_exact_and_proven(step, tmp_path):
    store = tmp_path / "store"
    base = tiny_bert(tmp_path / "base", head=True)
    child = run(step, base, store, data=text_rows()).children[0]

    weights = claims(child.folder, Store(store)).child
    for name, number in child.manifest.definition.internal.structure["zeros"].items():
        share = step.sparsity or 0.5
        assert zeros(weights[name]) == number == round(share * weights[name].numel())
        if step.pattern:
            size = int(step.pattern[-1])
            assert bool(((weights[name].reshape(-1, size) != 0).sum(dim=1) <= size // 2).all())
    findings = prove_step(child.folder, store=Store(store)).findings
    assert not any(finding.holds is False for finding in findings), findings
    unknown = [finding.claim for finding in findings if finding.holds is None]
    assert len(unknown) == (step.method == "sparsegpt")


def test_the_first_layer_is_what_the_formula_says(start, bert):
    """Wanda on inputs gathered with plain hooks; padding does not count."""
    module, session = start(bert)
    layer = module.bert.encoder.layer[0].attention.self.query
    weight, seen = layer.weight.detach().clone(), []
    with layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach())):
        batches = session.batches(32, batch_size=16)
        with torch.no_grad():
            for batch in batches:
                session.task.forward(module, batch)
    tokens = torch.cat([x[b["attention_mask"].bool()] for x, b in zip(seen, batches, strict=True)])

    Sparsify(sparsity=0.5, method="wanda", calibration=FEW).adapt(module, session)

    scores = weight.abs() * tokens.norm(dim=0)
    for row, before, score in zip(layer.weight, weight, scores, strict=True):
        kept = score.argsort()[16:]
        assert {*row.nonzero().flatten().tolist()} == {*kept.tolist()}
        assert row[kept].equal(before[kept])


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_outputs_are_nearer_than_without_looking(start, bert, method):
    module, session = start(bert)
    with torch.no_grad():  # as trained networks have them: a few hidden channels are large
        module.bert.embeddings.LayerNorm.weight[:4] *= 10
    dense = session.logits(module, 32)
    errors = {}
    for each in ("magnitude", method):
        network = copy.deepcopy(module)
        options = {} if each == "magnitude" else {"calibration": FEW}
        Sparsify(sparsity=0.7, method=each, **options).adapt(network, session)
        errors[each] = float((session.logits(network, 32) - dense).square().mean())
    assert errors[method] < errors["magnitude"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "either sparsity"),
            ({"sparsity": 0.5, "pattern": "2:4"}, "either sparsity"),
            ({"sparsity": 0.0}, "at least 0.01"),
            ({"sparsity": 1.0}, "less than 1"),
            ({"sparsity": 0.5, "calibration": Calibration(num_rows=8)}, "no effect"),
        ],
    )
    def test_options_that_make_no_sense(self, options, message):
        with pytest.raises(ValueError, match=message):
            Sparsify(**options)

    @pytest.mark.parametrize("form", ["adapter", "quantized", "quantized-adapter"])
    def test_other_forms(self, form):
        with pytest.raises(IncompatibleStep) as caught:
            Sparsify(sparsity=0.5).follow(form)
        assert caught.value.fix

    def test_what_would_fill_the_zeros(self):
        for step in (LoRA(), Merge(models=(ModelRef("a"),))):
            with pytest.raises(IncompatibleStep):
                step.follow("sparse")

    def test_no_effect(self, start, bert):
        module, session = start(bert)
        Sparsify(sparsity=0.5).adapt(module, session)
        with pytest.raises(IncompatibleStep, match="no effect"):
            Sparsify(sparsity=0.3).adapt(module, session)

    def test_groups_that_do_not_divide(self, start, bert):
        module, session = start(bert)
        module.bert.encoder.layer[1].output.dense = nn.Linear(66, 32)
        with pytest.raises(IncompatibleStep, match=r"groups of 4, but .*layer\.1.* has 66 inputs"):
            Sparsify(pattern="2:4").adapt(module, session)

    def test_a_layer_that_is_no_matrix(self, start, bert):
        module, session = start(bert)
        with pytest.raises(IncompatibleStep, match="of type Embedding"):
            Sparsify(sparsity=0.5, target_modules=("word_embeddings",)).adapt(module, session)

    def test_nothing_but_the_head(self, start, bert):
        module, session = start(bert)
        with pytest.raises(IncompatibleStep, match="no layer besides the head"):
            Sparsify(sparsity=0.5, target_modules=("head",)).adapt(module, session)

    def test_a_layer_that_is_new(self, start, bert):
        module, session = start(bert)
        name = "bert.encoder.layer.0.output.dense"
        session = session.with_fresh(frozenset({f"{name}.weight"}))
        with pytest.raises(IncompatibleStep, match=f"{name} is newly initialised"):
            Sparsify(sparsity=0.5).adapt(module, session)

    def test_weights_without_an_order(self, start, bert):
        module, session = start(bert)
        with torch.no_grad():
            module.bert.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
        with pytest.raises(IncompatibleStep, match="not all finite"):
            Sparsify(sparsity=0.5).adapt(module, session)


@pytest.fixture(scope="module")
def healed(tmp_path_factory):
    """Sparsified, trained, sparsified further, trained."""
    folder = tmp_path_factory.mktemp("healed")
    steps = (
        Sparsify(sparsity=0.5),
        FineTune(fit=SHORT),
        Sparsify(pattern="2:4"),
        FineTune(fit=SHORT, train=("backbone",)),
    )
    store = folder / "store"
    return run(steps, tiny_bert(folder / "base", head=True), store, data=text_rows()), Store(store)


def test_training_keeps_the_zeros_and_every_edge_is_proven(healed):
    execution, store = healed
    weights = [claims(child.folder, store).child for child in execution.children]
    forms = [child.manifest.definition.internal.form for child in execution.children]
    assert forms == ["sparse"] * 4
    for made, trained in ((0, 1), (2, 3)):
        for name in execution.children[made].manifest.definition.internal.structure["zeros"]:
            zero = weights[made][name] == 0
            assert zeros(weights[made][name]) >= zero.numel() // 2
            assert bool((weights[trained][name][zero] == 0).all()), name
            assert not weights[trained][name].equal(weights[made][name]), name
    for child in execution.children:
        assert all(finding.holds for finding in prove_step(child.folder, store=store).findings)


def test_a_sparse_model_that_gets_a_head_of_other_labels_is_proven(healed):
    execution, store = healed
    sparse = execution.children[0].folder

    done = run(FineTune(fit=SHORT), sparse, store.path, data=other_labels())

    assert all(
        finding.holds for finding in prove_step(done.children[0].folder, store=store).findings
    )


def test_the_child_opens_in_plain_transformers(healed):
    from transformers import AutoModelForSequenceClassification

    child = healed[0].children[-1]
    plain = AutoModelForSequenceClassification.from_pretrained(child.folder)
    weight = plain.bert.encoder.layer[0].attention.self.query.weight
    assert zeros(weight) >= weight.numel() // 2
    assert child.manifest.definition.internal.rebuild == ()


def test_a_rehearsal_finds_what_a_chain_would_run_into(tmp_path):
    settled = plan(
        tiny_bert(tmp_path / "base", head=True),
        (Sparsify(sparsity=0.5, method="wanda", calibration=FEW), FineTune(fit=SHORT)),
        task=TextClassification(),
        data=text_rows(),
        store=tmp_path / "store",
    )
    sparsified, trained = rehearse(settled)
    assert (sparsified.num_steps, trained.num_steps) == (0, 2)

    greedy = replace(
        settled, steps=(Sparsify(sparsity=0.5, method="wanda", calibration=Calibration()),)
    )
    with pytest.raises(DataError, match="128 rows"):
        rehearse(greedy)


class TestProof:
    """One forged child a claim."""

    structure = {
        "new": ["head.weight"],
        "zeros": {"q.weight": 12, "t.weight": 12},
        "transposed": ["t.weight"],
    }

    def parent(self):
        torch.manual_seed(0)
        return {
            "q.weight": torch.randn(3, 8),
            "t.weight": torch.randn(8, 3),
            "k.weight": torch.randn(3, 8),
        }

    def honest(self, step):
        parent = self.parent()
        child = {**parent, "head.weight": torch.ones(2, 3)}
        for name, flipped in (("q.weight", False), ("t.weight", True)):
            matrix = parent[name].T if flipped else parent[name]
            made = matrix.masked_fill(Quota(step.sparsity, step.pattern).smallest(matrix), 0.0)
            child[name] = made.T.contiguous() if flipped else made
        return child

    def failing(self, step, child, structure=None, parent=None):
        found = step.prove([parent or self.parent()], child, structure or self.structure)
        return [(each.claim, each.tensor) for each in found if each.holds is False]

    steps = pytest.mark.parametrize(
        "step", [Sparsify(sparsity=0.5), Sparsify(pattern="2:4")], ids=["share", "pattern"]
    )

    @steps
    def test_an_honest_child_passes(self, step):
        assert self.failing(step, self.honest(step)) == []

    @steps
    def test_a_survivor_moved_by_a_millionth(self, step):
        child = self.honest(step)
        child["q.weight"] = torch.where(child["q.weight"] == 0, 0.0, child["q.weight"] + 1e-6)
        ((claim, tensor),) = self.failing(step, child)
        assert tensor == "q.weight"
        assert "smallest" in claim

    @steps
    def test_another_tensor_moved(self, step):
        child = self.honest(step)
        child["k.weight"] = child["k.weight"] + 1e-6
        assert [tensor for _, tensor in self.failing(step, child)] == ["k.weight"]

    @steps
    def test_a_tensor_said_to_be_new_that_is_not(self, step):
        parent = {**self.parent(), "head.weight": torch.ones(2, 3)}
        assert self.failing(step, self.honest(step), parent=parent) == [
            ("what is new is not in the parent", "head.weight")
        ]

    @steps
    def test_a_copy_of_the_parent_that_records_no_target(self, step):
        child = {**self.parent(), "head.weight": torch.ones(2, 3)}
        structure = {**self.structure, "zeros": {}}
        assert self.failing(step, child, structure) == [
            ("every target is there, and together they gained zeros", "")
        ]

    @steps
    def test_a_target_that_is_not_there(self, step):
        structure = {**self.structure, "zeros": {**self.structure["zeros"], "lost.weight": 12}}
        assert self.failing(step, self.honest(step), structure)[0][1] == "lost.weight"

    @steps
    def test_a_zero_filled_again(self, step):
        child = self.honest(step)
        child["t.weight"] = child["t.weight"].clone()
        child["t.weight"][child["t.weight"] == 0] = self.parent()["t.weight"][
            child["t.weight"] == 0
        ]
        assert {tensor for _, tensor in self.failing(step, child)} == {"t.weight"}

    def test_fewer_zeros_than_the_recipe_says(self):
        child = self.honest(Sparsify(sparsity=0.5))
        failed = self.failing(Sparsify(sparsity=0.6), child)
        assert next(claim for claim, _ in failed).startswith("every target holds as many zeros")

    def test_zeros_elsewhere_than_the_pattern_says(self):
        failed = self.failing(Sparsify(pattern="2:4"), self.honest(Sparsify(sparsity=0.5)))
        assert any("2:4" in claim for claim, _ in failed)

    @steps
    def test_other_weights_zeroed_than_the_smallest(self, step):
        child = self.honest(step)
        child["q.weight"] = torch.where(child["q.weight"] == 0, self.parent()["q.weight"], 0.0)
        assert [tensor for _, tensor in self.failing(step, child)] == ["q.weight"]

    def test_wanda_leaves_the_survivors_alone(self):
        step = Sparsify(sparsity=0.5, method="wanda")
        child = self.honest(Sparsify(sparsity=0.5))
        assert self.failing(step, child) == []
        child["q.weight"] = torch.where(child["q.weight"] == 0, 0.0, child["q.weight"] + 1e-6)
        ((claim, tensor),) = self.failing(step, child)
        assert (tensor, "bit for bit" in claim) == ("q.weight", True)

    def test_sparsegpt_may_move_survivors_but_fills_no_zero_of_the_parent(self):
        step = Sparsify(sparsity=0.5, method="sparsegpt")
        child = self.honest(Sparsify(sparsity=0.5))
        child["q.weight"][:, 1:] *= 1.5
        assert self.failing(step, child) == []
        moved = {**child, "q.weight": child["q.weight"] * 1.5}
        ((claim, tensor),) = self.failing(step, moved)
        assert ("first input" in claim, tensor) == (True, "q.weight")
        parent = self.parent()
        at = child["q.weight"].flatten().abs().argmax()
        parent["q.weight"].view(-1)[at] = 0
        assert [tensor for _, tensor in self.failing(step, child, parent=parent)] == ["q.weight"]

    @steps
    def test_a_parent_of_other_weights(self, step):
        parent = {name: value + 1 for name, value in self.parent().items()}
        assert self.failing(step, self.honest(step), parent=parent)
