"""Steps of a recipe that are interrupted while they train, and go on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from safetensors import safe_open

from chains import LORA, MERGE, SHORT, TUNE, run, text_rows
from reuselib.adapter import Adapted, Adapter, Finding
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.data import Splits
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import Child, execute
from reuselib.derivation.plan import plan
from reuselib.derivation.saving import Saving
from reuselib.errors import Interrupted, TrainingError
from reuselib.lineage.checkpoints import Checkpoints, read
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert
from reuselib.training.plan import EarlyStopping, FitPlan
from reuselib.training.trail import Recorder

LONG = FitPlan(epochs=3, batch_size=8, gradient_accumulation_steps=2, learning_rate=1e-2)
"""4 steps an epoch."""
GRADUAL = FineTune(
    train=("head", "block[-1:]"),
    unfreeze_every=1,
    fit=replace(LONG, early_stopping=EarlyStopping(patience=5)),
)


@pytest.fixture(autouse=True)
def _steady_trail(monkeypatch):
    """How often there is an entry depends on the time that steps take; here it does not."""
    monkeypatch.setattr(Recorder, "_chosen", lambda self: 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"), head=True)


def interrupting(kind: str, step: int, number: int = signal.SIGTERM) -> Callable[[Any], None]:
    """A report that has the process interrupted after a step of a training."""

    def report(progress: Any) -> None:
        if kind in progress.phase and progress.done == step and not progress.remark:
            signal.raise_signal(number)

    return report


def carry_out(base: Path, steps: Any, store: Path, rows: Splits | None = None, **runtime: Any):
    settled = plan(base, steps, task=TextClassification(), data=rows or text_rows(), store=store)
    return execute(settled, Runtime(**runtime)).children


def assert_same(one: Child, other: Child) -> None:
    assert one.manifest.digests == other.manifest.digests
    assert one.manifest.derivation_id == other.manifest.derivation_id
    trails = [(each.folder / "lineage" / "trail.jsonl").read_bytes() for each in (one, other)]
    assert trails[0] == trails[1]


@pytest.mark.parametrize(
    ("steps", "at"),
    [
        ((GRADUAL,), (2, 4, 7)),
        ((LoRA(r=2, lora_dropout=0.2, fit=LONG),), (3, 12)),
        ((Prune(ffn=0.5), Distill(fit=LONG)), (5,)),
        ((Quantize(fit=LONG),), (6,)),
    ],
    ids=["unfreezing and early stopping", "lora", "distillation", "quantization-aware"],
)
def test_an_interrupted_run_ends_in_the_same_child(base, steps, at, tmp_path):
    whole = carry_out(base, steps, tmp_path / "whole")[-1]
    for step in at:
        store, told = tmp_path / f"store-{step}", list[str]()
        with pytest.raises(Interrupted) as caught:
            carry_out(base, steps, store, report=interrupting(f"{steps[-1].kind}: training", step))
        assert caught.value.step == step
        assert list((store / "tmp").glob("*/new")) == []

        child = carry_out(
            base, steps, store, report=lambda each, told=told: told.append(each.remark)
        )[-1]

        assert_same(child, whole)
        assert any(each.startswith(f"resumed after step {step} of ") for each in told)
        assert not Checkpoints(store, child.manifest.derivation_id).folder.exists()


def test_a_checkpoint_of_an_adapter_holds_only_what_learns(base, tmp_path):
    with pytest.raises(Interrupted) as caught:
        carry_out(base, LORA, tmp_path, report=interrupting("training", 1))

    with safe_open(caught.value.folder / "tensors.safetensors", "pt") as file:
        weights = [name for name in file.keys() if name.startswith("weights.")]  # noqa: SIM118
        sizes = [file.get_tensor(name).numel() for name in weights]
    assert all("lora_" in name or "classifier" in name or name.endswith("_ids") for name in weights)
    assert sum(sizes) < 0.1 * sum(p.stat().st_size // 4 for p in base.glob("*.safetensors"))


@dataclass(frozen=True, kw_only=True)
class Twice(Adapter):
    """Trains two times."""

    kind: ClassVar[str] = "twice"
    fit: FitPlan = SHORT
    calls: ClassVar[list[str]] = []

    def adapt(self, module, run):
        first = run.fit(module, self.fit)
        self.calls.append("between")
        second = run.fit(module, replace(self.fit, learning_rate=1e-3))
        return Adapted(module, metrics={**second, "first": first["train_loss"]})

    def prove(self, parents, child, structure):
        yield Finding("trained", True)


def test_a_training_that_ended_is_not_done_again(base, tmp_path):
    """SHORT has 2 steps; the second training is interrupted after its first."""
    whole = carry_out(base, Twice(), tmp_path / "whole")[-1]
    done = []

    def report(progress):
        if not progress.remark and progress.phase.endswith("training"):
            done.append(progress.done)
            if done == [1, 2, 1]:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        carry_out(base, Twice(), tmp_path / "store", report=report, checkpoint_seconds=0.0)
    again, told = list[int](), list[str]()

    def watch(progress):
        (told if progress.remark else again).append(progress.remark or progress.done)

    child = carry_out(base, Twice(), tmp_path / "store", report=watch)[-1]

    assert again == [2]
    assert [each.split(" (")[0] for each in told] == [
        "had ended already, after step 2",
        "resumed after step 1 of 2",
    ]
    assert_same(child, whole)


def test_one_of_another_recipe_is_refused_and_names_the_field(base, tmp_path):
    with pytest.raises(Interrupted) as caught:
        carry_out(base, LORA, tmp_path / "one", report=interrupting("training", 1))
    other = replace(LORA, fit=replace(SHORT, learning_rate=5e-5))

    with pytest.raises(TrainingError) as refused:
        carry_out(base, other, tmp_path / "one", resume=caught.value.folder)

    assert "adapter.lora.fit.learning_rate: 0.01 there, 5e-05 here" in refused.value.what


def test_one_of_other_rows_is_refused(base, tmp_path):
    with pytest.raises(Interrupted) as caught:
        carry_out(base, LORA, tmp_path, report=interrupting("training", 1))
    rows = Splits.of(list(text_rows().train)[::-1], list(text_rows().test))

    with pytest.raises(TrainingError, match=r"\n  data: [0-9a-f]{64} there, [0-9a-f]{64} here"):
        carry_out(base, LORA, tmp_path, rows, resume=caught.value.folder)


def test_one_that_was_copied_away_can_be_named(base, tmp_path):
    with pytest.raises(Interrupted) as caught:
        carry_out(base, LORA, tmp_path / "one", report=interrupting("training", 1))
    told = list[str]()

    child = carry_out(
        base, LORA, tmp_path / "other", resume=caught.value.folder, report=lambda p: told.append(p.remark)
    )[-1]  # fmt: skip

    assert_same(child, run(LORA, base, tmp_path / "whole", data=text_rows()).children[-1])
    assert any(each.startswith("resumed after step 1 of 2") for each in told)


class TestACheckpointThatIsNotUsed:
    """One that was asked for by name."""

    @pytest.fixture
    def point(self, base, tmp_path) -> Path:
        with pytest.raises(Interrupted) as caught:
            carry_out(base, LORA, tmp_path / "one", report=interrupting("training", 1))
        return caught.value.folder

    def test_of_a_finished_step(self, base, point, tmp_path):
        carry_out(base, LORA, tmp_path / "other")

        with pytest.raises(TrainingError, match="was not used: no step was trained"):
            carry_out(base, LORA, tmp_path / "other", resume=point)

    def test_by_steps_without_training(self, base, point, tmp_path):
        with pytest.raises(TrainingError, match="was not used: no step was trained"):
            carry_out(base, Prune(ffn=0.5), tmp_path / "other", resume=point)

    def test_is_used_once_however_often_a_network_is_opened(
        self, base, point, tmp_path, monkeypatch
    ):
        steps, store = (LORA, MERGE, TUNE), tmp_path / "other"
        lora, _, tuned = carry_out(base, steps, store)
        for each in (lora, tuned):
            shutil.rmtree(each.folder)
        # so the one between them is found by the claim, and what follows begins with its folder

        made = carry_out(base, steps, store, resume=point)

        assert [each.reused for each in made] == [False, True, False]
        assert_same(made[0], replace(lora, folder=made[0].folder))


def test_none_are_kept_unless_time_goes_by(base, tmp_path):
    seen = list[list[Path]]()
    carry_out(
        base, LORA, tmp_path, report=lambda _: seen.append(list(tmp_path.glob("checkpoints/*/*")))
    )

    assert not any(seen)


def test_a_checkpoint_says_what_it_belongs_to(base, tmp_path):
    with pytest.raises(Interrupted) as caught:
        carry_out(base, LORA, tmp_path, report=interrupting("training", 1))

    title, _ = read(caught.value.folder)

    assert title.inputs["adapter"]["lora"]["fit"]["learning_rate"] == 1e-2
    assert title.inputs["data"] == text_rows().digest
    assert title.inputs["seed"] == 0
    assert title.environment["device"] == "cpu"
    assert title.environment["num_processes"] == 1
    assert {"torch", "transformers", "python"} <= set(title.environment["versions"])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"checkpoint_seconds": float("nan")}, "the time between two checkpoints is nan"),
        ({"checkpoint_seconds": -1.0}, "the time between two checkpoints is -1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
    ],
)
def test_checkpoints_that_make_no_sense_are_refused(told, said):
    with pytest.raises(TrainingError, match=said):
        Saving.of(Runtime(**told))
