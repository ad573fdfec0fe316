from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from chains import run
from reuselib.adapter import ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.prune import Prune
from reuselib.adapters.sparsify import Sparsify
from reuselib.data import Splits
from reuselib.derivation.teacher import Teacher
from reuselib.errors import IncompatibleStep
from reuselib.evidence.prove import prove_step
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.measure.claims import same_bits
from reuselib.model import Model
from reuselib.model.opening import open_network
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.module import ModuleTask
from reuselib.testing.tiny import (
    tiny_bert,
    tiny_cnn,
    tiny_images,
    tiny_llama,
    tiny_resnet,
    tiny_vit,
)
from reuselib.training.lessons import Losses
from reuselib.training.plan import EarlyStopping, FitPlan

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-3)
LONG = FitPlan(epochs=12, batch_size=16, learning_rate=2e-3)


def taught_by(session, folder):
    """The session, with the model in that folder as the origin."""
    teacher = Teacher(("origin",), lambda: open_network(folder, session.task, session.store))
    return replace(session, origin_teacher=teacher)


def states(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def divergence(session, module, other):
    own, theirs = (session.logits(each, 32).log_softmax(-1) for each in (module, other))
    return float((theirs.exp() * (theirs - own)).sum(-1).mean())


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Folder of a tiny model with decided opinions: a teacher worth listening to."""
    from transformers import AutoModelForSequenceClassification

    folder = tiny_bert(tmp_path_factory.mktemp("learned"), head=True, num_layers=3, seed=2)
    module = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(6)
    module.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two language models: a student and a teacher."""
    folder = tmp_path_factory.mktemp("llamas")
    return tiny_llama(folder / "student"), tiny_llama(folder / "teacher", seed=3, num_layers=3)


@pytest.fixture
def other(tmp_path):
    """A model of the same tokenizer and another width."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tiny_bert(tmp_path / "other", head=True, num_layers=1)
    config = BertConfig.from_pretrained(folder, hidden_size=16, num_attention_heads=2)
    torch.manual_seed(7)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "narrow")
    BertForSequenceClassification(config).save_pretrained(tmp_path / "narrow")
    return tmp_path / "narrow"


class TestHealing:
    def test_a_broken_model_comes_nearer_to_what_it_was(self, start, learned):
        module, session = start(learned)
        teacher = start(learned)[0]
        with torch.no_grad():
            for layer in module.bert.encoder.layer:
                layer.intermediate.dense.weight[::2] = 0
        before = divergence(session, module, teacher)

        adapted = Distill(fit=LONG).adapt(module, taught_by(session, learned))

        assert divergence(session, adapted.module.eval(), teacher) < before / 3
        assert adapted.stock
        assert adapted.metrics["lesson_bytes"] > 0

    @pytest.mark.parametrize(
        "losses",
        [
            Losses(logits=0.0, hidden=1.0),
            Losses(logits=0.0, relations=1.0),
            Losses(logits=0.5, task=0.5, hidden=0.1, relations=0.1),
        ],
        ids=str,
    )
    def test_each_loss_teaches(self, start, learned, bert, losses):
        module, session = start(bert)
        fits = []

        for epochs in (1, 6):
            module, session = start(bert)
            fit = replace(LONG, epochs=epochs)
            adapted = Distill(losses=losses, fit=fit).adapt(module, taught_by(session, learned))
            fits.append(adapted.metrics["train_loss"])

        assert fits[1] < 0.8 * fits[0]

    def test_everything_learns_but_no_projection_is_kept(self, start, learned, other):
        module, session = start(other)
        before = states(module)

        adapted = Distill(losses=Losses(task=0.5, hidden=1.0), fit=SHORT).adapt(
            module, taught_by(session, learned)
        )

        assert adapted.module is module
        assert states(module).keys() == before.keys()
        still = {n for n, v in module.named_parameters() if v.equal(before[n])}
        assert all("embeddings" in name for name in still)

    def test_a_model_has_nothing_to_learn_from_itself(self, start, learned):
        module, session = start(learned)

        with pytest.raises(IncompatibleStep, match="nothing to learn") as caught:
            Distill(fit=SHORT).adapt(module, taught_by(session, learned))
        assert "losses.task" in caught.value.fix

    def test_early_stopping_teaches_the_rows_that_are_left(self, start, learned, bert):
        module, session = start(bert)
        fit = replace(SHORT, epochs=2, early_stopping=EarlyStopping())

        adapted = Distill(fit=fit).adapt(module, taught_by(session, learned))

        assert adapted.metrics["num_examples"] < 2 * len(session.splits.train)
        assert "validation_accuracy" in adapted.metrics

    def test_the_same_again_from_the_kept_answers(self, start, learned, other, monkeypatch):
        """Neither opening the teacher nor leaving that out moves the generator."""
        adapter = Distill(losses=Losses(hidden=1.0), fit=SHORT)
        results = []

        for _ in range(2):
            module, session = start(other)
            results.append(states(adapter.adapt(module, taught_by(session, learned)).module))
            monkeypatch.setattr("reuselib.training.notebook.write", None)

        assert all(same_bits(results[0][name], results[1][name]) for name in results[0])


class TestBlocks:
    def test_the_student_is_made_of_the_chosen_blocks(self, start, learned):
        module, session = start(learned)
        before = states(module)
        fit = replace(SHORT, max_steps=1, learning_rate=1e-12)

        adapted = Distill(blocks=(0, 2), fit=fit).adapt(module, taught_by(session, learned))

        after = states(adapted.module)
        for name, value in after.items():
            old = name.replace("encoder.layer.1.", "encoder.layer.2.")
            assert torch.allclose(value, before[old], atol=1e-9)
        assert adapted.module.config.num_hidden_layers == 2

    def test_the_child_opens_in_plain_transformers(self, rows, learned, tmp_path):
        from transformers import AutoModelForSequenceClassification

        from chains import plain_text_logits

        execution = run(Distill(blocks=(0, 2), fit=SHORT), learned, tmp_path / "store", data=rows)

        folder = execution.children[-1].folder
        plain = AutoModelForSequenceClassification.from_pretrained(folder)
        texts = [row["text"] for row in rows.test]
        own = execution.model().logits(rows.test)
        assert torch.allclose(plain_text_logits(plain, folder, texts), own, atol=1e-5)
        assert len(plain.bert.encoder.layer) == 2
        assert execution.children[-1].manifest.definition.internal.rebuild == ()

    @pytest.mark.parametrize("blocks", [(0, 1, 2), (1, 3), (7,)])
    def test_what_names_no_part_of_the_blocks_is_refused(self, start, learned, blocks):
        module, session = start(learned)

        with pytest.raises(IncompatibleStep, match="does not name some of the network's 3 blocks"):
            Distill(blocks=blocks, fit=SHORT).adapt(module, taught_by(session, learned))


class TestStudent:
    def test_another_model_learns_and_is_kept_as_itself(self, rows, learned, other, tmp_path):
        adapter = Distill(student=ModelRef(str(other)), fit=SHORT)

        execution = run(adapter, learned, tmp_path / "store", data=rows)

        child = execution.children[-1]
        assert [parent.role for parent in child.manifest.parents] == [
            "base",
            "student-init",
            "teacher",
        ]
        model = Model.load(child.folder, store=tmp_path / "store")
        assert model.module.config.hidden_size == 16
        assert same_bits(model.logits(rows.test), execution.model().logits(rows.test))
        assert all(
            each.holds
            for each in prove_step(child.folder, store=Store(tmp_path / "store")).findings
        )

    def test_one_that_lacks_a_head_is_refused_with_the_way_round(self, start, learned, bare_bert):
        module, session = start(learned)

        with pytest.raises(IncompatibleStep, match="no weights for classifier") as caught:
            Distill(student=ModelRef(str(bare_bert)), fit=SHORT).adapt(
                module, taught_by(session, learned)
            )
        assert "make it the base" in caught.value.fix
        assert "teachers" in caught.value.fix

    def test_one_of_another_tokenizer_is_refused(self, start, learned, other):
        vocabulary = other / "tokenizer.json"
        vocabulary.write_text(vocabulary.read_text().replace('"film"', '"movie"'))
        module, session = start(learned)

        with pytest.raises(IncompatibleStep, match="another tokenizer"):
            Distill(student=ModelRef(str(other)), fit=SHORT).adapt(
                module, taught_by(session, learned)
            )


class TestTeachers:
    def test_a_named_teacher_is_recorded_and_the_origin_is_not(self, rows, learned, bert, tmp_path):
        adapter = Distill(teachers=(ModelRef(str(learned)),), fit=SHORT)

        execution = run(adapter, bert, tmp_path / "store", data=rows)

        child = execution.children[-1]
        assert [parent.role for parent in child.manifest.parents] == ["base", "teacher"]
        assert all(
            each.holds
            for each in prove_step(child.folder, store=Store(tmp_path / "store")).findings
        )
        assert len(list((tmp_path / "store" / "lessons").glob("*"))) == 1

    def test_each_of_several_is_asked_and_recorded(self, rows, learned, bert, tmp_path):
        named = (
            ModelRef(str(learned)),
            ModelRef(str(tiny_bert(tmp_path / "b", head=True, seed=4))),
        )

        child = run(
            Distill(teachers=named, fit=SHORT), bert, tmp_path / "store", data=rows
        ).children[-1]

        assert [parent.role for parent in child.manifest.parents] == ["base", "teacher", "teacher"]
        assert len(list((tmp_path / "store" / "lessons").glob("*"))) == 2

    def test_one_of_other_labels_is_refused(self, start, bert, tmp_path):
        stranger = tiny_bert(tmp_path / "three", head=True, num_labels=3)
        module, session = start(bert)

        with pytest.raises(IncompatibleStep, match="cannot teach"):
            Distill(teachers=(ModelRef(str(stranger)),), fit=SHORT).adapt(module, session)

    def test_one_of_another_tokenizer_teaches_by_its_logits_only(
        self, start, learned, bert, tmp_path
    ):
        stranger = tiny_bert(tmp_path / "stranger", head=True)
        vocabulary = stranger / "tokenizer.json"
        vocabulary.write_text(vocabulary.read_text().replace('"film"', '"movie"'))
        named = (ModelRef(str(stranger)),)
        module, session = start(bert)

        assert Distill(teachers=named, fit=SHORT).adapt(module, session).metrics["train_loss"] > 0
        with pytest.raises(IncompatibleStep, match="takes the rows in otherwise"):
            Distill(teachers=named, losses=Losses(hidden=1.0), fit=SHORT).adapt(module, session)


class TestLanguageModels:
    task = CausalLM(max_length=12)

    def test_the_lost_mass_is_recorded(self, folders, rows, tmp_path):
        adapter = Distill(teachers=(ModelRef(str(folders[1])),), top_k=5, fit=SHORT)

        child = run(adapter, folders[0], tmp_path / "store", data=rows, task=self.task).children[-1]

        step = json.loads((child.folder / "lineage" / "metrics.json").read_text())["step"]
        assert 0 < step["lost_mass"] < 1

    def test_another_vocabulary_is_refused(self, folders, rows, tmp_path):
        stranger = tiny_llama(tmp_path / "stranger")
        vocabulary = stranger / "tokenizer.json"
        vocabulary.write_text(vocabulary.read_text().replace('"film"', '"movie"'))
        adapter = Distill(teachers=(ModelRef(str(stranger)),), fit=SHORT)

        with pytest.raises(IncompatibleStep, match=r"another vocabulary.*'film' is"):
            run(adapter, folders[0], tmp_path / "store", data=rows, task=self.task)

    def test_a_teacher_with_more_outputs_than_tokens_is_aligned(self, folders, rows, tmp_path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        wide = tmp_path / "wide"
        module = AutoModelForCausalLM.from_pretrained(folders[1])
        module.resize_token_embeddings(module.config.vocab_size + 9)
        module.save_pretrained(wide)
        AutoTokenizer.from_pretrained(folders[1]).save_pretrained(wide)
        children = [
            run(Distill(teachers=(ModelRef(str(each)),), fit=SHORT), folders[0], tmp_path / "store",
                data=rows, task=self.task).model()
            for each in (folders[1], wide)
        ]  # fmt: skip

        one, other = (states(each.module) for each in children)
        assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


class TestChain:
    """After steps that compress."""

    def test_what_was_pruned_is_healed_by_what_it_was(self, rows, learned, tmp_path):
        steps = [Prune(heads=0.5, ffn=0.5), Distill(fit=SHORT)]

        execution = run(steps, learned, tmp_path / "store", data=rows)

        pruned, healed = execution.children
        teacher = healed.manifest.parents[-1]
        assert (teacher.role, teacher.digests) == ("teacher", pruned.manifest.parents[0].digests)
        # fewer heads are more than a configuration of BERT can say, so the child is rebuilt
        assert [*healed.manifest.definition.internal.rebuild[0]["adapter"]] == ["prune"]
        model = Model.load(healed.folder, store=tmp_path / "store")
        assert same_bits(model.logits(rows.test), execution.model().logits(rows.test))
        assert all(
            each.holds
            for each in prove_step(healed.folder, store=Store(tmp_path / "store")).findings
        )

    def test_blocks_are_dropped_from_what_was_pruned(self, rows, learned, tmp_path):
        steps = [Prune(heads=0.5), Distill(blocks=(0, 1), fit=SHORT)]

        execution = run(steps, learned, tmp_path / "store", data=rows)

        kinds = [
            next(iter(entry["adapter"]))
            for entry in execution.children[-1].manifest.definition.internal.rebuild
        ]
        assert kinds == ["prune", "distill"]
        model = Model.load(execution.children[-1].folder, store=tmp_path / "store")
        assert same_bits(model.logits(rows.test), execution.model().logits(rows.test))

    def test_the_zeros_of_a_sparse_model_stay(self, rows, learned, tmp_path):
        steps = [Sparsify(sparsity=0.5), Distill(fit=SHORT)]

        execution = run(steps, learned, tmp_path / "store", data=rows)

        sparse, healed = (dict(Tensors(child.folder)) for child in execution.children)
        zeroed = [n for n, v in sparse.items() if v.ndim == 2 and (v == 0).float().mean() > 0.4]
        assert zeroed
        assert all(healed[name][sparse[name] == 0].eq(0).all() for name in zeroed)
        assert any(not healed[name].equal(sparse[name]) for name in zeroed)
        assert execution.children[-1].manifest.definition.internal.form == "sparse"


class TestImages:
    """Of transformers and of networks from Python."""

    @pytest.mark.parametrize(
        ("make", "losses"),
        [
            (tiny_vit, Losses(task=0.5, hidden=1.0, relations=1.0)),
            (tiny_resnet, Losses(task=0.5, hidden=1.0)),
        ],
    )
    def test_patches_and_maps_teach(self, make, losses, tmp_path):
        steps = [FineTune(fit=SHORT), Distill(losses=losses, fit=SHORT)]
        rows = Splits.of(tiny_images(32, size=16), tiny_images(8, size=16, seed=1))
        task = ImageClassification(size=16)

        execution = run(steps, make(tmp_path / "base"), tmp_path / "store", data=rows, task=task)

        folder = execution.children[-1].folder
        model = Model.load(folder, store=tmp_path / "store")
        assert same_bits(model.logits(rows.test), execution.model().logits(rows.test))
        assert all(
            each.holds for each in prove_step(folder, store=Store(tmp_path / "store")).findings
        )

    def test_a_network_from_python_teaches_itself(self, tmp_path):
        rows = [
            {"x": row["image"][None].astype("float32"), "y": int(row["label"] == "right")}
            for row in tiny_images(40)
        ]
        task = ModuleTask(network=tiny_cnn, criterion=torch.nn.functional.cross_entropy)
        distill = Distill(losses=Losses(task=0.5, hidden=1.0), fit=SHORT)

        execution = run(
            distill, tiny_cnn(), tmp_path / "store", data=Splits.of(rows[:32], rows[32:]), task=task
        )

        # running means move without a gradient
        structure = execution.children[-1].manifest.definition.internal.structure
        assert "1.running_mean" in structure["statistics"]
        assert all(
            f.holds
            for f in prove_step(
                execution.children[-1].folder, store=Store(tmp_path / "store")
            ).findings
        )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"blocks": ()}, "blocks"),
        ({"blocks": (2, 1)}, "blocks"),
        ({"blocks": (-1, 0)}, "blocks"),
        ({"blocks": (0,), "student": ModelRef("./a")}, "student and blocks"),
        ({"losses": Losses(logits=0.0, hidden=1.0), "temperature": 4.0}, "no effect"),
        ({"losses": Losses(logits=0.0, hidden=1.0), "top_k": 4}, "no effect"),
        ({"layer_map": ((0, 0),)}, "layer_map has no effect"),
    ],
)
def test_options_out_of_range_or_without_effect_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        Distill(**options)


@pytest.mark.parametrize(
    "weights", [{"logits": 0.0}, {"logits": 0.0, "task": 1.0}, {"hidden": -1.0}], ids=str
)
def test_losses_must_need_a_teacher(weights):
    with pytest.raises(ValueError, match=r"teacher|negative"):
        Losses(**weights)


def test_top_k_needs_categories(start, learned, bert):
    module, session = start(bert)
    session = replace(session, task=replace(session.task, problem="multi_label"))

    with pytest.raises(IncompatibleStep, match="top_k has no effect"):
        Distill(top_k=1, fit=SHORT).adapt(module, taught_by(session, learned))


def test_a_temperature_needs_scores(start, learned, bert):
    module, session = start(bert)
    session = replace(session, task=replace(session.task, problem="regression", labels=None))

    with pytest.raises(IncompatibleStep, match="temperature has no effect"):
        Distill(temperature=3.0, fit=SHORT).adapt(module, taught_by(session, learned))


def test_only_plain_weights_learn():
    assert [Distill().follow(form) for form in ("dense", "sparse")] == ["dense", "sparse"]
    for form in ("adapter", "quantized", "quantized-adapter"):
        with pytest.raises(IncompatibleStep):
            Distill().follow(form)


class TestProof:
    """One forged child a claim."""

    parent = {
        "layer.0.w": torch.ones(2, 2),
        "layer.1.w": torch.full((2, 2), 2.0),
        "head.w": torch.zeros(3),
        "n.running_mean": torch.ones(1),
    }
    structure = {
        "cut": {"axes": {}, "tensors": {}, "blocks": {"layer": {"size": 2, "keep": [1]}}},
        "trained": ["head.w", "layer.0.w"],
        "statistics": [],
    }

    def failing(self, child, parents=None):
        parents = parents or [self.parent, self.parent]
        return [
            f for f in Distill(blocks=(1,)).prove(parents, child, self.structure) if not f.holds
        ]

    def honest(self):
        return {
            "layer.0.w": torch.full((2, 2), 2.5),
            "head.w": torch.full((3,), 0.5),
            "n.running_mean": torch.ones(1),
        }

    def test_an_honest_child_passes(self):
        assert self.failing(self.honest()) == []

    def test_a_block_too_many_fails(self):
        child = {**self.honest(), "layer.1.w": torch.ones(2, 2)}
        assert self.failing(child)[0].tensor == "layer.1.w"

    def test_other_blocks_than_those_named_fail(self):
        findings = Distill(blocks=(0,)).prove([self.parent] * 2, self.honest(), self.structure)
        (failed,) = [each for each in findings if not each.holds]
        assert "named blocks" in failed.claim

    @pytest.mark.parametrize(
        "cut",
        [
            None,
            {
                **structure["cut"],
                "axes": {"a": {"size": 2, "keep": [0]}},
                "tensors": {"a": [[["a", 1]]]},
            },
        ],
    )
    def test_another_cut_than_that_of_the_named_blocks_fails(self, cut):
        structure = {**self.structure, "cut": cut}
        findings = Distill(blocks=(1,)).prove([self.parent] * 2, self.honest(), structure)
        assert any("named blocks" in each.claim for each in findings if not each.holds)

    def test_another_shape_fails(self):
        child = {**self.honest(), "layer.0.w": torch.ones(2, 3)}
        assert self.failing(child)[0].tensor == "layer.0.w"

    def test_what_does_not_learn_must_be_bit_equal(self):
        child = {**self.honest(), "n.running_mean": torch.full((1,), 1 + 1e-6)}
        (failed,) = self.failing(child)
        assert failed.tensor == "n.running_mean"

    def test_a_child_in_which_nothing_was_learned_fails(self):
        child = {**self.honest(), "layer.0.w": torch.full((2, 2), 2.0), "head.w": torch.zeros(3)}
        (failed,) = self.failing(child)
        assert "differs" in failed.claim

    def test_a_missing_teacher_fails(self):
        (failed,) = self.failing(self.honest(), [self.parent])
        assert "teacher" in failed.claim

    def test_another_student_fails(self):
        """The start is the named student, not the model before the step."""
        student = {"a": torch.ones(2), "b": torch.ones(2)}
        structure = {"cut": None, "trained": ["a"], "statistics": []}
        adapter = Distill(student=ModelRef("./s"))
        child = {"a": torch.zeros(2), "b": torch.ones(2)}

        for start, holds in ((student, True), ({**student, "b": torch.zeros(2)}, False)):
            findings = adapter.prove([self.parent, start, self.parent], child, structure)
            assert all(finding.holds for finding in findings) is holds


def test_a_teacher_that_changed_since_is_found(rows, bert, tmp_path):
    teacher = tiny_bert(tmp_path / "teacher", head=True)
    adapter = Distill(teachers=(ModelRef(str(teacher)),), fit=SHORT)
    child = run(adapter, bert, tmp_path / "store", data=rows).children[-1]

    tiny_bert(teacher, head=True, seed=9)

    step = prove_step(child.folder, store=Store(tmp_path / "store"))
    assert step.tier == "broken"
    assert "PARENT_MISMATCH" in step.findings[-1].detail
