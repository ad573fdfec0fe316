"""`derive` over kinds of networks, and what plain transformers and peft make of the children."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

from chains import LORA, MERGE, SHORT, TUNE, modified, plain_peft, plain_text_logits
from reuselib.adapter import ModelRef
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime, derive
from reuselib.errors import DataError, IncompatibleStep
from reuselib.lineage.digest import file_digests
from reuselib.lineage.verify import verify
from reuselib.measure.claims import same_bits
from reuselib.model import Model
from reuselib.recipe import Recipe
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.module import ModuleTask
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import (
    tiny_bert,
    tiny_cnn,
    tiny_images,
    tiny_llama,
    tiny_resnet,
    tiny_rows,
    tiny_vit,
)

ALL = FineTune(fit=SHORT)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module, before):
    now = module.state_dict()
    return now.keys() == before.keys() and all(
        same_bits(now[name], before[name]) for name in before
    )


def test_a_recipe_has_the_same_parameters():
    parameters = set(inspect.signature(derive).parameters)

    assert {each.name for each in fields(Recipe)} == parameters - {"runtime"}


class TestText:
    def test_a_lora_child_opens_with_plain_peft_to_the_same_outputs(self, chain):
        texts = [row["text"] for row in chain.rows.test]

        plain = plain_peft(
            AutoModelForSequenceClassification, chain.base, chain.lora.folder, num_labels=2
        )

        ours = Model.load(chain.lora.folder, store=chain.store).logits(chain.rows.test)
        assert plain_text_logits(plain, chain.base, texts).equal(ours)

    @pytest.mark.parametrize("step", ["merged", "tuned"])
    def test_a_whole_child_opens_with_plain_transformers_to_the_same_outputs(self, chain, step):
        folder = getattr(chain, step).folder
        texts = [row["text"] for row in chain.rows.test]

        plain = AutoModelForSequenceClassification.from_pretrained(folder)

        ours = Model.load(folder, store=chain.store).logits(chain.rows.test)
        assert plain_text_logits(plain, folder, texts).equal(ours)
        assert plain.config.id2label == {0: "bad", 1: "good"}

    def test_the_merged_model_says_what_the_adapter_said(self, chain):
        rows = chain.rows.test
        lora, merged = (
            Model.load(each.folder, store=chain.store) for each in (chain.lora, chain.merged)
        )

        assert torch.allclose(lora.logits(rows), merged.logits(rows), atol=1e-6)

    def test_what_was_not_selected_stays_bit_for_bit(self, chain):
        before, after = (
            load_file(each.folder / "model.safetensors") for each in (chain.merged, chain.tuned)
        )

        trained = {name for name in before if name.startswith("classifier") or ".layer.1." in name}
        assert {name for name in before if not same_bits(before[name], after[name])} == trained


class TestCausalLM:
    """Tied embeddings: one tensor, two places."""

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory):
        place = tmp_path_factory.mktemp("llama")
        base = tiny_llama(place / "base")
        rows = Splits.of(tiny_rows(32), tiny_rows(16, seed=1))
        runtime = Runtime(store=place / "store")
        chains = {
            name: derive(base, steps, task=CausalLM(), data=rows, runtime=runtime)
            for name, steps in {
                "lora": LORA,
                "merged": (LORA, MERGE),
                "tuned": (LORA, MERGE, ALL),
            }.items()
        }
        return base, rows, chains

    @pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
    def test_plain_libraries_say_the_same(self, made, step):
        base, rows, models = made
        folder, texts = models[step].folder, [rows.test[0]["text"]]
        if step == "lora":
            plain = plain_peft(AutoModelForCausalLM, base, folder)
        else:
            plain = AutoModelForCausalLM.from_pretrained(folder)
            assert plain.lm_head.weight is plain.model.embed_tokens.weight

        ids = torch.tensor(
            [
                models[step]
                .task.encode(rows.test[:1], models[step].processor)[0]["input_ids"]
                .tolist()
            ]
        )
        with torch.inference_mode():
            wanted = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        assert texts
        assert torch.allclose(models[step].logits(rows.test[:1]), wanted, atol=1e-6)

    def test_the_tied_tensor_is_stored_once_and_trained(self, made):
        _, _, models = made
        before, after = (
            load_file(models[step].folder / "model.safetensors") for step in ("merged", "tuned")
        )

        assert "lm_head.weight" not in after
        assert not before["model.embed_tokens.weight"].equal(after["model.embed_tokens.weight"])

    def test_perplexity_is_measured_and_every_child_verifies(self, made):
        for model in made[2].values():
            assert model.figures.metric == "perplexity"
            assert model.figures.after["perplexity"] > 1
            assert verify(model.folder).ok


class TestImages:
    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls):
        return Splits.of(tiny_images(32, size=16), tiny_images(8, size=16, seed=1))

    def pixels(self, model, rows):
        examples = model.task.encode(rows, model.processor)
        return model.task.collate([examples[index] for index in range(len(rows))], model.processor)[
            "pixel_values"
        ]

    @pytest.mark.parametrize("merged", [False, True])
    def test_a_vision_transformer(self, rows, tmp_path, merged):
        base, runtime = tiny_vit(tmp_path / "base"), Runtime(store=tmp_path / "store")
        steps = (LORA, MERGE) if merged else (LORA,)

        child = derive(base, steps, task=ImageClassification(), data=rows, runtime=runtime)

        if merged:
            plain = AutoModelForImageClassification.from_pretrained(child.folder).eval()
        else:
            options = {"num_labels": 2, "id2label": {0: "left", 1: "right"}}
            plain = plain_peft(AutoModelForImageClassification, base, child.folder, **options)
        with torch.inference_mode():
            wanted = plain(pixel_values=self.pixels(child, rows.test)).logits
        assert torch.allclose(child.logits(rows.test), wanted, atol=1e-6)
        assert set(child.predict(rows.test)) <= {"left", "right"}

    def test_a_residual_network_with_running_statistics(self, rows, tmp_path):
        base = tiny_resnet(tmp_path / "base")
        runtime, task = Runtime(store=tmp_path / "store"), ImageClassification(size=16)

        child = derive(base, ALL, task=task, data=rows, runtime=runtime)

        plain = AutoModelForImageClassification.from_pretrained(child.folder).eval()
        with torch.inference_mode():
            wanted = plain(pixel_values=self.pixels(child, rows.test)).logits
        assert torch.allclose(child.logits(rows.test), wanted, atol=1e-6)
        structure = child.manifest.definition.internal.structure
        before, after = (
            load_file(base / "model.safetensors"),
            load_file(child.folder / "model.safetensors"),
        )
        moved = {
            name for name in after if "running_" in name and not after[name].equal(before[name])
        }
        assert moved
        assert moved <= set(structure["statistics"])
        again = Model.load(child.folder, store=tmp_path / "store")
        assert again.logits(rows.test).equal(child.logits(rows.test))


class TestModule:
    """Any torch.nn.Module, from Python."""

    TASK = ModuleTask(network=tiny_cnn, criterion=functional.cross_entropy, outputs=("8",))

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls):
        def turned(num_rows, seed):
            images = tiny_images(num_rows, seed=seed)
            return [
                {
                    "x": (row["image"][None] / 255).astype("float32"),
                    "y": int(row["label"] == "right"),
                }
                for row in images
            ]

        return Splits.of(turned(32, 0), turned(8, 1))

    def test_a_chain_of_two_leaves_the_module_as_it_was(self, rows, tmp_path):
        module, runtime = tiny_cnn().train(), Runtime(store=tmp_path / "store")
        before = state(module)

        child = derive(
            module,
            (ALL, FineTune(train=("head",), fit=SHORT)),
            task=self.TASK,
            data=rows,
            runtime=runtime,
        )

        assert unchanged(module, before)
        assert module.training
        assert child.module is not module
        assert child.manifest.parents[0].uri.startswith("urn:reuselib:model:")
        plain = tiny_cnn()
        plain.load_state_dict(load_file(child.folder / "model.safetensors"))
        inputs = torch.stack([torch.from_numpy(row["x"]) for row in rows.test])
        with torch.inference_mode():
            assert plain.eval()(inputs).equal(child.logits(rows.test))
        again = Model.load(child.folder, task=self.TASK)
        assert again.logits(rows.test).equal(child.logits(rows.test))

    def test_the_same_module_again_computes_nothing(self, rows, tmp_path):
        module, runtime = tiny_cnn(), Runtime(store=tmp_path / "store")
        first = derive(module, ALL, task=self.TASK, data=rows, runtime=runtime)
        before = modified(first.folder)

        again = derive(module, ALL, task=self.TASK, data=rows, runtime=runtime)

        assert again.folder == first.folder
        assert modified(first.folder) == before


class TestBase:
    def test_every_way_to_name_a_base_gives_the_same_child(self, chain, monkeypatch):
        monkeypatch.chdir(chain.base.parent)
        task = TextClassification()
        model = Model.load(chain.base, task=task.pin(chain.rows), store=chain.store)
        bases = [chain.base, str(chain.base), "./base", "base", ModelRef(str(chain.base)), model]

        folders = {
            derive(
                base, LORA, task=task, data=chain.rows, runtime=Runtime(store=chain.store)
            ).folder
            for base in bases
        }

        assert folders == {chain.lora.folder}

    def test_the_folder_of_the_base_stays_as_it_was(self, tmp_path, chain):
        base = tiny_bert(tmp_path / "base", head=True)
        before, times = file_digests(base), modified(base)

        derive(
            base,
            (ALL, LORA, MERGE),
            task=TextClassification(),
            data=chain.rows,
            runtime=Runtime(store=tmp_path / "s"),
        )

        assert file_digests(base) == before
        assert modified(base) == times

    def test_what_is_derived_can_be_derived_from_and_stays_as_it_was(self, chain, tmp_path):
        runtime, task = Runtime(store=tmp_path / "store"), TextClassification()
        lora = derive(chain.base, LORA, task=task, data=chain.rows, runtime=runtime)
        before, files = state(lora.module), file_digests(lora.folder)

        merged = derive(lora, MERGE, task=task, data=chain.rows, runtime=runtime)

        assert unchanged(lora.module, before)
        assert file_digests(lora.folder) == files
        # one after the other is the same as both at once
        assert merged.folder.name == chain.merged.folder.name
        assert merged.manifest.digests == chain.merged.manifest.digests
        assert merged.manifest.parents[0].uri == chain.merged.manifest.parents[0].uri

    def test_a_child_may_be_adapted_to_other_labels(self, chain, tmp_path):
        """Its new head is trained and saved with the adapter, as for any base that has none."""
        from chains import other_labels

        rows, runtime = other_labels(), Runtime(store=chain.store)

        child = derive(
            chain.execution.model(), LORA, task=TextClassification(), data=rows, runtime=runtime
        )

        assert child.manifest.definition.internal.fresh == ("classifier.bias", "classifier.weight")
        assert set(child.predict(rows.test)) <= {"bad", "good", "mild"}
        again = Model.load(child.folder, store=chain.store)
        assert again.logits(rows.test).equal(child.logits(rows.test))
        with pytest.raises(IncompatibleStep, match="newly initialised"):
            derive(
                chain.execution.model(), FineTune(train=("block[-1:]",), fit=SHORT),
                task=TextClassification(), data=rows, runtime=runtime,
            )  # fmt: skip


class TestRuntime:
    def test_a_repeated_call_computes_nothing(self, chain):
        before = modified(chain.store / "models")

        model = derive(
            chain.base,
            (LORA, MERGE, TUNE),
            task=TextClassification(),
            data=chain.rows,
            runtime=Runtime(store=chain.store),
        )

        assert modified(chain.store / "models") == before
        assert model.manifest == chain.tuned.manifest

    def test_without_a_store_the_environment_names_it(self, chain, tmp_path, monkeypatch):
        monkeypatch.setenv("REUSELIB_STORE", str(tmp_path / "named"))

        child = derive(chain.base, FineTune(fit=SHORT), task=TextClassification(), data=chain.rows)

        assert child.folder.parent == tmp_path / "named/models"

    def test_the_output_holds_the_last_child(self, chain, tmp_path):
        derive(
            chain.base, (LORA, MERGE), task=TextClassification(), data=chain.rows,
            runtime=Runtime(store=chain.store, output=tmp_path / "out"),
        )  # fmt: skip

        assert verify(tmp_path / "out").manifest == chain.merged.manifest


class TestWithoutRows:
    def test_an_average_needs_none(self, tmp_path):
        folders = [
            tiny_bert(tmp_path / name, head=True, seed=seed) for seed, name in enumerate("ab")
        ]

        child = derive(
            folders[0], Merge(models=(ModelRef(str(folders[1])),)),
            task=TextClassification(), runtime=Runtime(store=tmp_path / "store"),
        )  # fmt: skip

        one, other = (load_file(folder / "model.safetensors") for folder in folders)
        for name, value in load_file(child.folder / "model.safetensors").items():
            assert torch.allclose(value, (one[name] + other[name]) / 2, atol=1e-7), name

    def test_a_step_that_learns_needs_some(self, chain, tmp_path):
        task = TextClassification(labels=("bad", "good"))

        with pytest.raises(DataError, match="no data"):
            derive(chain.base, LoRA(), task=task, runtime=Runtime(store=tmp_path / "store"))
        assert list((tmp_path / "store/models").iterdir()) == []
