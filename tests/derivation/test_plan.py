from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from chains import LORA, MERGE, SHORT, TUNE, Chain, flip, other_labels
from reuselib.adapter import Adapted, Adapter, Finding, ModelRef
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.derivation.plan import check_order, form_of, identity, plan, references
from reuselib.errors import IncompatibleStep, RecipeError, SourceError, StoreError
from reuselib.lineage.inventory import take_inventory
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert

TESTS = str(Path(__file__).parent.parent)


@dataclass(frozen=True, kw_only=True)
class Teach(Adapter):
    """Names other models in two of its fields."""

    kind: ClassVar[str] = "teach"
    teacher: ModelRef
    others: tuple[ModelRef, ...] = ()
    rate: float = 0.5

    def adapt(self, module, run):
        return Adapted(module)

    def prove(self, parents, child, structure):
        yield Finding("taught", True)


def first_id(settled):
    return settled.id(settled.steps[0], settled.base)


class TestId:
    def test_it_depends_on_the_inputs_only(self, chain: Chain, tmp_path):
        """Not on the store, nor on where the base is."""
        shutil.copytree(chain.base, tmp_path / "moved")

        once, again = chain.plan(), chain.plan(store=tmp_path / "other", base=tmp_path / "moved")

        assert first_id(once) == first_id(again) == chain.lora.folder.name

    @pytest.mark.parametrize(
        "other",
        [
            {"seed": 1},
            {"task": TextClassification(max_length=64)},
            {"data": other_labels()},
            {"steps": (replace(LORA, lora_dropout=0.1),)},
            {"steps": (replace(LORA, fit=replace(SHORT, learning_rate=2e-2)),)},
            {"steps": (FineTune(fit=SHORT),)},
        ],
        ids=["seed", "task", "data", "option", "nested option", "kind"],
    )
    def test_every_input_changes_it(self, chain, other):
        assert first_id(chain.plan(**other)) != chain.lora.folder.name

    def test_the_base_changes_it(self, chain, tmp_path):
        base = tiny_bert(tmp_path / "base", seed=1)

        assert first_id(chain.plan(base=base)) != chain.lora.folder.name

    def test_a_default_that_is_written_out_does_not_change_it(self, chain):
        explicit = LoRA(r=2, lora_dropout=0.0, use_dora=False, last_blocks=None, fit=SHORT)

        assert first_id(chain.plan((explicit,))) == chain.lora.folder.name

    def test_it_is_the_same_in_every_process(self, chain):
        """The order of sets and of dictionaries may not matter."""
        code = f"""
from pathlib import Path
from chains import LORA, text_rows
from reuselib.derivation.plan import identity, plan
from reuselib.tasks.text_classification import TextClassification
made = plan(Path({str(chain.base)!r}), LORA, task=TextClassification(), data=text_rows(), store=Path({str(chain.store)!r}))
print(made.id(made.steps[0], made.base))
"""
        environment = {"PYTHONHASHSEED": "12", "PYTHONPATH": TESTS, "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )

        assert done.stdout.strip() == chain.lora.folder.name


def test_another_name_of_the_same_model_is_the_same_child(chain, tmp_path):
    """What counts is the digest, not where the folder lies."""
    shutil.copytree(chain.merged.folder, tmp_path / "one")
    shutil.copytree(chain.merged.folder, tmp_path / "other")
    base = str(chain.merged.folder)

    ids = {
        chain.plan((Merge(models=(ModelRef(str(tmp_path / name)),)),), base=base).id(
            chain.plan((Merge(models=(ModelRef(str(tmp_path / name)),)),), base=base).steps[0],
            chain.plan(LORA, base=base).base,
        )
        for name in ("one", "other")
    }

    assert len(ids) == 1


def test_a_whole_child_of_a_model_with_code_of_its_own_is_refused_before_any_work(chain, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(chain.base, base)
    (base / "modeling_own.py").write_text("raise SystemExit")
    trusted = ModelRef(str(base), trust_remote_code=True)

    with pytest.raises(IncompatibleStep, match=r"steps\[1\]: 'merge' would write a whole model"):
        chain.plan((LORA, MERGE), base=trusted)
    assert chain.plan((LORA,), base=trusted).steps == (LORA,)


class TestInputs:
    def test_a_single_step_need_not_be_a_list(self, chain):
        assert plan(
            chain.base, LORA, task=TextClassification(), data=chain.rows, store=chain.store
        ).steps == (LORA,)

    def test_no_step_is_refused(self, chain):
        with pytest.raises(IncompatibleStep, match="no step"):
            chain.plan(())

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "0"])
    def test_a_seed_that_no_recipe_could_say_is_refused(self, chain, seed):
        with pytest.raises(RecipeError, match="seed: expected an integer"):
            chain.plan(seed=seed)

    def test_the_rows_fill_in_the_labels(self, chain):
        assert chain.plan().task == TextClassification(labels=("bad", "good"))

    def test_without_rows_the_task_stays_as_it_is(self, chain):
        settled = chain.plan(data=None)

        assert (settled.task, settled.splits, settled.data) == (TextClassification(), None, None)

    def test_a_base_that_is_not_there_is_named(self, chain):
        with pytest.raises(SourceError, match=r"no folder \./nowhere"):
            chain.plan(base="./nowhere")

    def test_every_reference_in_a_field_is_pinned(self, chain, tmp_path):
        folders = [tiny_bert(tmp_path / name, num_layers=1) for name in ("one", "two")]
        adapter = Teach(teacher=ModelRef(str(folders[0])), others=(ModelRef(str(folders[1])),))

        [pinned] = chain.plan((adapter,)).steps

        digests = [take_inventory(folder).digests.dir_hash for folder in folders]
        assert pinned == Teach(
            teacher=ModelRef("./one", digest=digests[0]),
            others=(ModelRef("./two", digest=digests[1]),),
        )
        assert references(pinned) == (
            ("student-init", pinned.teacher),
            ("student-init", pinned.others[0]),
        )

    def test_an_adapter_without_references_is_kept_as_it_is(self, chain):
        assert chain.plan((LORA,)).steps[0] is LORA
        assert references(LORA) == ()

    def test_a_reference_that_is_not_there_is_an_error_now(self, chain):
        with pytest.raises(SourceError, match="nowhere"):
            chain.plan((Merge(models=(ModelRef("./nowhere"),)),))


class TestOrder:
    def test_forms_are_followed_through_the_chain(self):
        assert check_order((TUNE, LORA, MERGE, TUNE), "dense") == (
            "dense",
            "adapter",
            "dense",
            "dense",
        )

    @pytest.mark.parametrize(
        ("steps", "index"),
        [((MERGE,), 0), ((LORA, LORA), 1), ((LORA, TUNE), 1), ((TUNE, MERGE), 1)],
    )
    def test_the_step_that_cannot_follow_is_named_with_a_way_out(self, chain, steps, index):
        with pytest.raises(IncompatibleStep, match=rf"^steps\[{index}\]: ") as caught:
            chain.plan(steps)
        assert caught.value.expected
        assert caught.value.fix

    def test_the_form_of_the_base_counts(self, chain):
        base = ModelRef(f"store:{chain.lora.folder.name}")

        assert form_of(chain.lora.manifest) == "adapter"
        assert chain.plan((MERGE,), base=base).steps == (MERGE,)
        with pytest.raises(IncompatibleStep, match=r"steps\[0\]"):
            chain.plan((TUNE,), base=base)

    def test_a_base_without_a_manifest_is_dense(self, chain):
        assert form_of(None) == form_of(chain.execution.plan.base.manifest) == "dense"


def test_an_adapter_is_its_own_bytes_and_those_of_its_base(chain):
    base, lora, merged = (
        chain.execution.plan.base.manifest,
        chain.lora.manifest,
        chain.merged.manifest,
    )

    assert identity(base) == (base.digests.dir_hash,)
    assert identity(lora) == (lora.digests.dir_hash, base.digests.dir_hash)
    assert identity(merged) == (merged.digests.dir_hash,)


class TestFinished:
    def test_the_leading_children_are_found(self, chain):
        folders = [child.folder for child in chain.execution.children]

        assert list(chain.plan().finished()) == folders
        assert list(chain.plan((LORA, MERGE)).finished()) == folders[:2]
        assert (
            list(chain.plan((LORA, MERGE, replace(TUNE, train=("all",)))).finished()) == folders[:2]
        )
        assert chain.plan((TUNE,)).finished() == ()

    def test_what_follows_a_gap_does_not_count(self, chain, tmp_path):
        store = chain.copied_store(tmp_path)
        shutil.rmtree(store / "models" / chain.lora.folder.name)

        assert chain.plan(store=store).finished() == ()

    @pytest.mark.parametrize("file", ["model.safetensors", "lineage/metrics.json", "config.json"])
    def test_a_damaged_child_is_an_error_that_names_the_file(self, chain, tmp_path, file):
        store = chain.copied_store(tmp_path)
        folder = store / "models" / chain.merged.folder.name
        flip(folder / file, -3)

        with pytest.raises(StoreError, match=file) as caught:
            chain.plan(store=store).finished()

        assert chain.merged.folder.name[:12] in caught.value.what
        assert str(folder) in caught.value.fix

    def test_a_child_that_lacks_a_file_is_damaged(self, chain, tmp_path):
        store = chain.copied_store(tmp_path)
        (store / "models" / chain.lora.folder.name / "adapter_config.json").unlink()

        with pytest.raises(StoreError, match=r"adapter_config\.json"):
            chain.plan(store=store).finished()


def test_planning_a_repeated_run_loads_nothing_heavy(chain):
    """Also not when the children are checked and the output is there already."""
    output = chain.store.parent / "output"
    code = f"""
import json, sys
from pathlib import Path
from chains import LORA, MERGE, TUNE, text_rows
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.derivation.plan import plan
from reuselib.tasks.text_classification import TextClassification
made = plan(
    Path({str(chain.base)!r}), (LORA, MERGE, TUNE), task=TextClassification(), data=text_rows(),
    store=Path({str(chain.store)!r}),
)
done = execute(made, Runtime(output=Path({str(output)!r})))
print(json.dumps([
    [child.reused for child in done.children],
    [name for name in ("torch", "transformers", "peft", "accelerate", "datasets") if name in sys.modules],
]))
"""
    for _ in range(2):
        environment = {"PYTHONPATH": TESTS, "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )

        assert json.loads(done.stdout) == [[True, True, True], []]
        assert (output / "model.safetensors").exists()
