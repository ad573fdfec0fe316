"""Prune on transformers, alone and through `derive`; `test_prune_channels.py` has convolutional networks."""

from __future__ import annotations

import pytest
import torch

from reuselib.adapters.finetune import FineTune
from reuselib.adapters.prune import Prune
from reuselib.calibration.plan import Calibration
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime, derive
from reuselib.errors import DataError, IncompatibleStep, IntegrityError
from reuselib.evidence.prove import prove_step
from reuselib.lineage.store import Store
from reuselib.model import Model
from reuselib.network.families import family
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing import check_adapter
from reuselib.testing.tiny import (
    tiny_bert,
    tiny_gpt2,
    tiny_images,
    tiny_llama,
    tiny_resnet,
    tiny_rows,
    tiny_vit,
)
from reuselib.training.plan import FitPlan

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-3)
ROWS = Calibration(num_rows=24, batch_size=8)


def sizes(module):
    """Heads, units, hidden channels, blocks."""
    found = family(module)
    block = found.blocks[0]
    return (
        block.attention.num_heads,
        block.feed_forward.num_units,
        found.hidden_size,
        len(found.blocks),
    )


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({}, "nothing is left out"),
            ({"ffn": 0.0}, "above 0 and below 1"),
            ({"heads": 1.0}, "above 0 and below 1"),
            ({"hidden": -0.5}, "above 0 and below 1"),
            ({"blocks": (1, 1)}, "names one twice"),
            ({"ffn": 0.5, "round_to": 1}, "at least 2"),
            ({"heads": 0.5, "round_to": 8}, "round_to has no effect"),
            ({"blocks": (1,), "scope": "global"}, "scope has no effect"),
            ({"hidden": 0.5, "scope": "global"}, "scope has no effect"),
            ({"blocks": (1,), "importance": "random"}, "importance has no effect"),
            ({"ffn": 0.5, "calibration": ROWS}, "calibration has no effect"),
        ],
    )
    def test_what_makes_no_sense_or_no_difference_is_refused(self, options, told):
        with pytest.raises(ValueError, match=told):
            Prune(**options)

    def test_it_keeps_dense_and_sparse_models_and_refuses_others(self):
        assert Prune(ffn=0.5).follow("dense") == "dense"
        assert Prune(ffn=0.5).follow("sparse") == "sparse"
        for form, way_out in (("quantized", "before `quantize`"), ("adapter", "`merge` step")):
            with pytest.raises(IncompatibleStep) as caught:
                Prune(ffn=0.5).follow(form)
            assert way_out in caught.value.fix


class TestWhatGoes:
    @pytest.mark.parametrize(
        ("options", "left", "stock"),
        [
            ({"heads": 0.5}, (2, 64, 32, 3), False),
            ({"ffn": 0.5}, (4, 32, 32, 3), True),
            ({"ffn": 0.5, "round_to": 24}, (4, 48, 32, 3), True),
            ({"hidden": 0.25}, (4, 64, 24, 3), False),
            ({"heads": 0.25, "hidden": 0.25}, (3, 64, 24, 3), True),
            ({"blocks": (0, -1)}, (4, 64, 32, 1), True),
            ({"heads": 0.5, "ffn": 0.3, "blocks": (1,)}, (2, 45, 32, 2), False),
        ],
    )
    def test_every_axis_and_several_at_once(self, start, bert, options, left, stock):
        module, session = start(bert)
        num_before = sum(each.numel() for each in module.parameters())

        adapted = Prune(**options).adapt(module, session)

        assert sizes(adapted.module) == left
        assert adapted.stock is stock
        num_after = sum(each.numel() for each in adapted.module.parameters())
        assert adapted.metrics["share_removed"] == pytest.approx(1 - num_after / num_before)
        assert session.logits(adapted.module, 8).isfinite().all()

    @pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation", "random"])
    def test_what_has_no_effect_goes_first(self, start, bert, importance):
        module, session = start(bert)
        dead = list(range(3, 64, 2))
        for layer in module.bert.encoder.layer:
            for tensor in (layer.intermediate.dense.weight, layer.intermediate.dense.bias):
                tensor.data[dead] = 0
            layer.output.dense.weight.data[:, dead] = 0
        rows = {"calibration": ROWS} if importance in ("taylor", "activation") else {}
        before = session.logits(module, 16)

        adapted = Prune(ffn=0.3, importance=importance, **rows).adapt(module, session)

        change = (session.logits(adapted.module, 16) - before).abs().max()
        assert bool(change < 1e-6) is (importance != "random")

    def test_global_takes_more_where_less_is_lost(self, start, bert):
        module, session = start(bert)
        for tensor in module.bert.encoder.layer[1].intermediate.dense.parameters():
            tensor.data[:40] *= 1e-3
        module.bert.encoder.layer[1].output.dense.weight.data[:, :40] *= 1e-3

        adapted = Prune(ffn=0.2, scope="global").adapt(module, session)

        units = [block.feed_forward.num_units for block in family(adapted.module).blocks]
        assert units == [64, 26, 64]
        assert not adapted.stock

    def test_ties_and_key_value_heads_survive_in_a_decoder(self, start, tmp_path):
        module = Model.load(tiny_llama(tmp_path / "base"), task=CausalLM()).module
        _, session = start(tiny_bert(tmp_path / "other"))

        adapted = Prune(heads=0.5, ffn=0.5).adapt(module, session)

        attention = family(adapted.module).blocks[0].attention
        assert (attention.num_heads, attention.num_groups) == (2, 1)
        assert adapted.module.lm_head.weight is adapted.module.model.embed_tokens.weight
        assert adapted.stock


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"blocks": (3,)}, "names 3, but the network has 3 blocks"),
            ({"blocks": (2, -1)}, "one block from both ends"),
            ({"blocks": (0, 1, 2)}, "are to stay"),
            ({"heads": 0.1}, "of the 4 heads"),
            ({"ffn": 0.5, "round_to": 128}, "of the 64 units"),
        ],
    )
    def test_nothing_that_cannot_be(self, start, bert, options, told):
        module, session = start(bert)

        with pytest.raises(IncompatibleStep, match=told):
            Prune(**options).adapt(module, session)

    def test_taylor_needs_a_head_that_was_trained(self, start, bare_bert):
        module, session = start(bare_bert)

        with pytest.raises(IncompatibleStep, match="newly initialised"):
            Prune(ffn=0.5, importance="taylor", calibration=ROWS).adapt(module, session)
        Prune(ffn=0.5, importance="activation", calibration=ROWS).adapt(module, session)

    def test_too_few_rows_to_calibrate_with(self, start, bert):
        module, session = start(bert)

        with pytest.raises(DataError, match="128 rows"):
            Prune(ffn=0.5, importance="activation").adapt(module, session)

    def test_a_family_without_a_table(self, tmp_path):
        from transformers import AlbertConfig, AlbertForSequenceClassification

        config = AlbertConfig(
            vocab_size=20,
            embedding_size=8,
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=24,
        )
        with pytest.raises(IncompatibleStep, match="of the family 'albert'"):
            Prune(ffn=0.5).adapt(AlbertForSequenceClassification(config), None)

    def test_a_convolutional_network(self, tmp_path):
        task = ImageClassification(labels=("a", "b"))
        module = task.load(tiny_resnet(tmp_path / "base")).module

        with pytest.raises(IncompatibleStep, match="'resnet'"):
            Prune(ffn=0.5).adapt(module, None)

    def test_a_structure_that_was_tampered_with(self, start, bert):
        module, _ = start(bert)

        for structure in (None, {"cut": {"axes": 3}, "stacks": [], "new": [], "tied": []}):
            with pytest.raises(IntegrityError, match="BAD_STRUCTURE"):
                Prune(ffn=0.5).rebuild(module, structure)


@pytest.fixture(scope="module")
def texts() -> Splits:
    return Splits.of(tiny_rows(48), tiny_rows(16, seed=1))


@pytest.fixture
def made(tmp_path, texts):
    """Derives from a tiny BERT with a classifier, in a store of its own."""

    def run(*steps, base=None, task=None, data=None):
        return derive(
            base or tiny_bert(tmp_path / "base", head=True, num_layers=3),
            steps,
            task=task or TextClassification(),
            data=data or texts,
            runtime=Runtime(store=tmp_path / "store"),
        )

    return run


class TestChildren:
    def test_a_uniform_child_opens_in_plain_transformers(self, made, texts):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        child = made(Prune(ffn=0.5, blocks=(1,)))

        plain = AutoModelForSequenceClassification.from_pretrained(child.folder).eval()
        tokens = AutoTokenizer.from_pretrained(child.folder)
        text = texts.test[0]["text"]
        with torch.no_grad():
            logits = plain(**tokens(text, return_tensors="pt")).logits
        assert sizes(plain) == (4, 32, 32, 2)
        assert child.manifest.definition.internal.rebuild == ()
        torch.testing.assert_close(logits, child.logits(texts.test[:1]), rtol=0, atol=1e-6)

    def test_a_child_that_no_configuration_can_say_is_rebuilt(self, made, texts, tmp_path):
        from transformers import AutoModelForSequenceClassification

        child = made(
            Prune(heads=0.5, ffn=0.3, scope="global", importance="activation", calibration=ROWS)
        )

        opened = Model.load(child.folder, store=tmp_path / "store")
        assert torch.equal(opened.logits(texts.test), child.logits(texts.test))
        # never silently something else
        with pytest.raises(RuntimeError, match="size"):
            AutoModelForSequenceClassification.from_pretrained(child.folder)

    @pytest.mark.parametrize(
        "steps",
        [
            (Prune(ffn=0.5),),
            (Prune(heads=0.5, hidden=0.25),),
            (Prune(ffn=0.25, heads=0.25, blocks=(-1,)), FineTune(fit=SHORT), Prune(ffn=0.5)),
            (Prune(heads=0.25), Prune(heads=0.34), FineTune(fit=SHORT)),
        ],
        ids=["stock", "rebuilt", "in turns", "twice"],
    )
    def test_chains_are_proven_and_open_again(self, made, texts, tmp_path, steps):
        child = made(*steps)

        store = Store(tmp_path / "store")
        findings = prove_step(child.folder, store=store).findings
        assert all(finding.holds for finding in findings), findings
        opened = Model.load(child.folder, store=tmp_path / "store")
        assert torch.equal(opened.logits(texts.test), child.logits(texts.test))

    @pytest.mark.parametrize("tiny", [tiny_llama, tiny_gpt2])
    def test_a_decoder_with_a_tied_head(self, made, tmp_path, tiny):
        from transformers import AutoModelForCausalLM

        rows = Splits.of([{"text": row["text"]} for row in tiny_rows(32)])
        child = made(
            Prune(heads=0.5, hidden=0.5, ffn=0.5, importance="taylor", calibration=ROWS),
            base=tiny(tmp_path / "decoder"),
            task=CausalLM(),
            data=rows,
        )

        plain = AutoModelForCausalLM.from_pretrained(child.folder)
        assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
        assert plain.get_output_embeddings().weight.shape[1] == 16
        assert all(
            f.holds for f in prove_step(child.folder, store=Store(tmp_path / "store")).findings
        )

    def test_a_head_that_the_base_lacks_is_cut_as_well_and_then_trained(self, made, tmp_path):
        child = made(
            Prune(hidden=0.25, heads=0.25), FineTune(fit=SHORT), base=tiny_bert(tmp_path / "bare")
        )

        assert child.module.classifier.weight.shape == (2, 24)
        pruned = Store(tmp_path / "store").locate(child.manifest.parents[0].digests.dir_hash)
        assert all(
            finding.holds
            for finding in prove_step(pruned, store=Store(tmp_path / "store")).findings
        )


def test_a_vision_transformer(tmp_path):
    from transformers import AutoModelForImageClassification

    child = derive(
        tiny_vit(tmp_path / "vit"),
        Prune(heads=0.5, hidden=0.25, ffn=0.5, importance="taylor", calibration=ROWS),
        task=ImageClassification(),
        data=Splits.of(tiny_images(32)),
        runtime=Runtime(store=tmp_path / "store"),
    )

    plain = AutoModelForImageClassification.from_pretrained(child.folder)
    assert sizes(plain) == (2, 32, 24, 2)
    assert all(
        finding.holds
        for finding in prove_step(child.folder, store=Store(tmp_path / "store")).findings
    )


def test_a_stock_child_keeps_the_laws_as_well(tmp_path):
    """That of tests/testing/test_laws.py is rebuilt."""
    check_adapter(
        Prune(ffn=0.5, importance="taylor", calibration=ROWS),
        laws=("untouched", "inert", "same", "rebuild", "circle", "proof"),
    )


class TestProof:
    """One forged child a claim; that survivors are compared bit for bit is in tests/pruning/test_proof.py."""

    def case(self, start, bert, **options):
        module, session = start(bert)
        parent = {name: value.clone() for name, value in module.state_dict().items()}
        adapter = Prune(**options)
        structure = adapter.adapt(module, session).structure
        return adapter, parent, dict(module.state_dict()), structure

    def failing(self, adapter, parent, child, structure):
        findings = adapter.prove([parent], child, structure)
        return [finding.claim for finding in findings if finding.holds is not True]

    def test_an_honest_child_passes(self, start, bert):
        case = self.case(
            start, bert, ffn=0.5, heads=0.25, hidden=0.25, blocks=(1,), scope="uniform"
        )
        assert self.failing(*case) == []
        case = self.case(start, bert, ffn=0.5, heads=0.25, scope="global")
        assert self.failing(*case) == []

    def test_a_survivor_that_moved_fails(self, start, bert):
        adapter, parent, child, structure = self.case(start, bert, ffn=0.5)
        name = "bert.encoder.layer.1.intermediate.dense.weight"
        child[name] = child[name] + 1e-6
        (claim,) = self.failing(adapter, parent, child, structure)
        assert "bit for bit" in claim

    def test_a_swapped_index_fails(self, start, bert):
        adapter, parent, child, structure = self.case(start, bert, ffn=0.5)
        axis = structure["cut"]["axes"]["bert.encoder.layer.0.output.dense:units"]
        axis["keep"][0] = next(i for i in range(64) if i not in axis["keep"])
        axis["keep"].sort()
        assert self.failing(adapter, parent, child, structure)

    def test_another_parent_fails(self, start, bert, tmp_path):
        adapter, _, child, structure = self.case(start, bert, ffn=0.5)
        other, _ = start(tiny_bert(tmp_path / "other", head=True, num_layers=3, seed=7))
        assert self.failing(adapter, dict(other.state_dict()), child, structure)

    def test_another_share_than_the_recorded_one_fails(self, start, bert):
        _, parent, child, structure = self.case(start, bert, ffn=0.5)
        together, each = self.failing(Prune(ffn=0.4), parent, child, structure)
        assert "ffn: at most the claimed share of 0.4" in together
        assert "ffn: every part" in each
        claims = self.failing(Prune(heads=0.5), parent, child, structure)
        assert [claim.partition(":")[0] for claim in claims] == ["heads", "ffn"]
        assert self.failing(Prune(ffn=0.5, blocks=(1,)), parent, child, structure)
