from __future__ import annotations

import copy
import dataclasses
import shutil

import pytest
import torch

from chains import flip
from reuselib.adapter import ModelRef
from reuselib.errors import IntegrityError, SourceError, StoreError
from reuselib.lineage.verify import verify
from reuselib.model import Model
from reuselib.tasks.text_classification import TextClassification

TASK = TextClassification(labels=("bad", "good"))


@pytest.fixture(scope="module")
def tuned(chain):
    """As `derive` hands it back."""
    return chain.execution.model()


@pytest.fixture(scope="module")
def telling(chain, tuned):
    """The same, moved so that it says one label of half of the rows and the other of the rest."""
    model = dataclasses.replace(tuned, module=copy.deepcopy(tuned.module))
    logits = model.logits(chain.rows.test)
    with torch.no_grad():
        model.module.classifier.bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    assert set(model.logits(chain.rows.test).argmax(-1).tolist()) == {0, 1}
    return model


class TestLoad:
    @pytest.mark.parametrize("named", ["path", "text", "store", "reference"])
    def test_a_child_opens_with_the_task_of_its_manifest(self, chain, tuned, named):
        folder, derivation_id = chain.tuned.folder, chain.tuned.folder.name
        source = {
            "path": folder,
            "text": str(folder),
            "store": f"store:{derivation_id[:12]}",
            "reference": ModelRef(f"store:{derivation_id}", digest=tuned.manifest.digests.dir_hash),
        }[named]

        model = Model.load(source, store=chain.store)

        assert model.task == tuned.task == TASK
        assert model.manifest == tuned.manifest
        assert model.logits(chain.rows.test).equal(tuned.logits(chain.rows.test))

    def test_an_adapter_opens_over_its_base(self, chain):
        model = Model.load(chain.lora.folder, store=chain.store)

        assert model.evaluate(chain.rows.test) == pytest.approx(model.figures.after)

    def test_a_base_needs_a_task(self, chain):
        with pytest.raises(SourceError, match="base does not say which task") as caught:
            Model.load(chain.base, store=chain.store)
        assert "task=" in caught.value.fix

        assert Model.load(chain.base, task=TASK, store=chain.store).manifest.relation == "import"

    def test_a_path_need_not_begin_with_a_dot(self, chain, monkeypatch):
        monkeypatch.chdir(chain.base.parent)
        from pathlib import Path

        assert Model.load(Path("base"), task=TASK, store=chain.store).folder == chain.base

    def test_a_changed_byte_is_refused(self, chain, tmp_path):
        shutil.copytree(chain.tuned.folder, tmp_path / "copy")
        flip(tmp_path / "copy/model.safetensors")

        with pytest.raises(IntegrityError, match="DIGEST_MISMATCH"):
            Model.load(tmp_path / "copy", store=chain.store)

    def test_a_task_that_only_python_can_say_must_be_given(self, chain, tmp_path):
        from chains import SHORT, run
        from reuselib.adapters.finetune import FineTune
        from reuselib.data import Splits
        from reuselib.tasks.module import ModuleTask
        from reuselib.testing.tiny import tiny_cnn

        rows = [{"x": torch.full((1, 8, 8), float(n)).numpy(), "y": n % 2} for n in range(8)]
        task = ModuleTask(network=tiny_cnn, criterion=torch.nn.functional.cross_entropy)
        steps, data = FineTune(fit=SHORT), Splits.of(rows, rows[:4])
        made = run(steps, tiny_cnn(), tmp_path / "store", data=data, task=task).model()

        with pytest.raises(SourceError, match="only Python can say"):
            Model.load(made.folder)
        assert Model.load(made.folder, task=task).logits(rows).equal(made.logits(rows))


class TestSave:
    def test_a_copy_is_whole_and_opens_to_equal_outputs(self, chain, tuned, tmp_path):
        tuned.save(tmp_path / "deep/copy")

        assert verify(tmp_path / "deep/copy").ok
        again = Model.load(tmp_path / "deep/copy", store=tmp_path / "empty")
        assert again.logits(chain.rows.test).equal(tuned.logits(chain.rows.test))

    def test_an_existing_folder_is_refused_unless_told(self, chain, tuned, tmp_path):
        Model.load(chain.merged.folder, store=chain.store).save(tmp_path / "copy")

        with pytest.raises(StoreError, match="already holds a model"):
            tuned.save(str(tmp_path / "copy"))
        assert verify(tmp_path / "copy").manifest == chain.merged.manifest

        tuned.save(tmp_path / "copy", overwrite=True)
        assert verify(tmp_path / "copy").manifest == tuned.manifest

    def test_somebody_elses_folder_is_refused_even_if_told(self, tuned, tmp_path):
        (tmp_path / "notes.txt").write_text("x")

        with pytest.raises(StoreError, match="never replaced"):
            tuned.save(tmp_path, overwrite=True)


class TestOutputs:
    def test_logits_are_in_the_order_of_the_rows_whatever_their_length(self, tuned, chain):
        rows = list(chain.rows.test)

        together, single = tuned.logits(rows), torch.cat([tuned.logits([row]) for row in rows])

        assert together.shape == (len(rows), 2)
        assert together.dtype == torch.float32
        assert torch.allclose(together, single, atol=1e-6)
        assert torch.allclose(tuned.logits(rows[::-1]), together.flip(0), atol=1e-6)
        assert not torch.allclose(together, together.flip(0), atol=1e-5)

    def test_predictions_are_names_of_labels(self, telling, chain):
        predicted = telling.predict(chain.rows.test)

        largest = telling.logits(chain.rows.test).argmax(-1).tolist()
        assert predicted == [("bad", "good")[index] for index in largest]

    def test_rows_without_labels_can_be_predicted(self, telling, chain):
        bare = [{"text": row["text"]} for row in chain.rows.test]

        assert telling.predict(bare) == telling.predict(chain.rows.test)

    def test_evaluation_counts_what_was_predicted(self, telling, chain):
        rows = chain.rows.test
        right = sum(a == row["label"] for a, row in zip(telling.predict(rows), rows, strict=True))

        assert telling.evaluate(rows)["accuracy"] == right / len(rows)

    def test_nothing_is_left_in_training_mode_or_with_gradients(self, tuned, chain):
        logits = tuned.logits(chain.rows.test)

        assert not logits.requires_grad
        assert not any(part.training for part in tuned.module.modules())


def test_figures_are_those_of_the_step_and_a_base_has_none(chain, tuned):
    assert tuned.figures.metric == "accuracy"
    assert tuned.figures.after == pytest.approx(tuned.evaluate(chain.rows.test))
    assert Model.load(chain.base, task=TASK, store=chain.store).figures.after == {}
