from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Points, points

from reuselib.adapters.lora import LoRA
from reuselib.errors import Interrupted, StoreError, TrainingError
from reuselib.lineage.checkpoints import Checkpoints
from reuselib.lineage.store import Store
from reuselib.network.selectors import select
from reuselib.progress import Progress
from reuselib.task import Task
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.module import ModuleTask
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import (
    tiny_bert,
    tiny_cnn,
    tiny_gpt2,
    tiny_images,
    tiny_llama,
    tiny_resnet,
    tiny_rows,
    tiny_vit,
)
from reuselib.training import activations, precision, search
from reuselib.training.activations import Shelf
from reuselib.training.checkpointing import Saver
from reuselib.training.fitting import fit
from reuselib.training.interruption import Interruption
from reuselib.training.job import FitResult, Job
from reuselib.training.plan import EarlyStopping, FitPlan, ParameterGroup
from reuselib.training.replay import Replay
from reuselib.training.state import Keeper, State, read_state, write_state

PLAN = FitPlan(epochs=3, batch_size=8, learning_rate=1e-3)
TEXTS = TextClassification(labels=("bad", "good"))
ROWS = tiny_rows(29)


def pictures(task_size: int) -> list[dict[str, Any]]:
    return tiny_images(21, size=task_size)


class Case:
    """A network from its seed, with its rows, of which some parameters learn."""

    def __init__(self, folder: Path, task: Task, rows: Any, train: Sequence[str]) -> None:
        self.folder, self.task, self.rows, self.train = folder, task, rows, train

    def load(self) -> tuple[nn.Module, Any, Any]:
        torch.manual_seed(0)
        loaded = self.task.load(self.folder)
        module = loaded.module
        learns = select(module, tuple(self.train), head=self.task.head(module))
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in learns)
        return module, loaded.processor, self.task.encode(self.rows, loaded.processor)

    def fit(self, plan: FitPlan, shelf: Shelf | None, **more: Any) -> tuple[Tensor, FitResult]:
        module, processor, train = self.load()
        more = {"seed": 3} | more
        result = fit(
            module, plan, Job(task=self.task, processor=processor, train=train, shelf=shelf, **more)
        )
        return learned(module), result


def learned(module: nn.Module) -> Tensor:
    return torch.cat(
        [each.detach().flatten() for each in module.parameters() if each.requires_grad]
    )


def cache(result: FitResult) -> str | int | None:
    return result.facts.get("prefix_cache")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(Store(tmp_path / "store"), "ab" * 32, 2**30)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tiny_bert(tmp_path_factory.mktemp("bert"), num_layers=3)
    return Case(folder, TEXTS, ROWS, ("head", "tail", "block[-1:]"))


FAMILIES = {
    "bert, head": (tiny_bert, TEXTS, ROWS, ("head",), "eval", "classifier"),
    "bert, pooler": (tiny_bert, TEXTS, ROWS, ("head", "tail"), "eval", "bert.pooler.dense"),
    "bert, block": (
        tiny_bert,
        TEXTS,
        ROWS,
        ("head", "tail", "block[-1:]"),
        "eval",
        "bert.encoder.layer.1",
    ),
    "llama, head": (
        lambda folder: tiny_llama(folder, tied=False),
        CausalLM(),
        ROWS,
        ("head",),
        "train",
        "lm_head",
    ),
    "llama, norm": (tiny_llama, CausalLM(), ROWS, ("tail",), "train", "model.norm"),
    "llama, block": (tiny_llama, CausalLM(), ROWS, ("block[-1:]",), "train", "model.layers.1"),
    "gpt2, block": (tiny_gpt2, CausalLM(), ROWS, ("block[-1:]",), "eval", "transformer.h.1"),
    "vit, block": (
        tiny_vit,
        ImageClassification(labels=("left", "right")),
        16,
        ("head", "block[-1:]"),
        "train",
        "vit.layers.1",
    ),
    "vit, head": (
        tiny_vit,
        ImageClassification(labels=("left", "right")),
        16,
        ("head",),
        "train",
        "classifier",
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_those_of_a_training_without(name: str, tmp_path: Path, shelf: Shelf) -> None:
    make, task, rows, train, frozen, cut = FAMILIES[name]
    rows = pictures(rows) if isinstance(rows, int) else rows
    case = Case(make(tmp_path / "base"), task, rows, train)
    plan = replace(PLAN, frozen=frozen)

    plain, _ = case.fit(plan, None)
    computed, result = case.fit(plan, shelf)
    found, again = case.fit(plan, shelf)

    assert cache(result) == cache(again) == f"before {cut}"
    torch.testing.assert_close(computed, plain, rtol=0, atol=1e-5)
    assert torch.equal(computed, found), (
        "what is found must train the same bits as what is computed"
    )


def images(module: nn.Module) -> tuple[ModuleTask, Any]:
    def build() -> nn.Module:
        return module

    task = ModuleTask(
        network=build,
        criterion=nn.functional.cross_entropy,
        arguments=("x",),
        outputs=("8",) if isinstance(module, nn.Sequential) else ("classifier",),
    )
    channels = 1 if isinstance(module, nn.Sequential) else 3
    rows = [
        {
            "x": torch.from_numpy(row["image"]).float().div(255).expand(channels, -1, -1).numpy(),
            "y": int(row["label"] == "right"),
        }
        for row in pictures(8 if channels == 1 else 16)
    ]
    return task, task.encode(rows, None)


class Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(pixel_values=x).logits


def test_plain_convolutions_with_running_statistics(shelf: Shelf) -> None:
    def trained(shelf: Shelf | None) -> tuple[Tensor, Tensor, FitResult]:
        torch.manual_seed(0)
        module = tiny_cnn()
        task, rows = images(module)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith("8."))
        result = fit(module, PLAN, Job(task=task, processor=None, train=rows, shelf=shelf))
        return learned(module), module.get_buffer("1.running_mean").clone(), result

    plain, plain_mean, _ = trained(None)
    weights, mean, result = trained(shelf)

    assert cache(result) == "before 8"
    torch.testing.assert_close(weights, plain, rtol=0, atol=1e-5)
    assert torch.equal(mean, plain_mean)


def test_residual_blocks_that_change_the_size(tmp_path: Path, shelf: Shelf) -> None:
    from transformers import AutoModelForImageClassification

    folder = tiny_resnet(tmp_path / "base")

    def trained(shelf: Shelf | None) -> tuple[Tensor, FitResult]:
        module = Logits(AutoModelForImageClassification.from_pretrained(folder))
        task, rows = images(module)
        task = replace(task, outputs=("network.classifier",))
        last = ("network.classifier", "network.resnet.encoder.stages.1.layers.1")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith(last))
        result = fit(module, PLAN, Job(task=task, processor=None, train=rows, shelf=shelf))
        return learned(module), result

    plain, _ = trained(None)
    weights, result = trained(shelf)

    assert cache(result) == "before network.resnet.encoder.stages.1.layers.1"
    torch.testing.assert_close(weights, plain, rtol=0, atol=1e-5)


def test_low_rank_updates_of_the_last_block(tmp_path: Path, shelf: Shelf) -> None:
    folder = tiny_llama(tmp_path / "base", num_layers=3)

    def trained(shelf: Shelf | None) -> tuple[Tensor, FitResult]:
        torch.manual_seed(0)
        task = CausalLM()
        loaded = task.load(folder)
        targets = [f"model.layers.2.{name}" for name in ("self_attn.q_proj", "mlp.down_proj")]
        module = LoRA(r=2).rebuild(loaded.module, {"targets": list(targets), "saved": []})
        train = task.encode(ROWS, loaded.processor)
        job = Job(task=task, processor=loaded.processor, train=train, shelf=shelf)
        result = fit(module, replace(PLAN, gradient_accumulation_steps=2), job)
        return learned(module), result

    plain, _ = trained(None)
    weights, result = trained(shelf)

    assert cache(result) == "before base_model.model.model.layers.2"
    torch.testing.assert_close(weights, plain, rtol=0, atol=1e-5)


def test_frozen_blocks_run_as_often_however_long_the_training(bert: Case, shelf: Shelf) -> None:
    def calls(epochs: int) -> int:
        module, processor, train = bert.load()
        seen: list[object] = []
        attention = module.get_submodule("bert.encoder.layer.0.attention")
        attention.register_forward_hook(lambda *_: seen.append(1))
        plan = replace(PLAN, epochs=epochs, frozen="eval")
        fit(module, plan, Job(task=TEXTS, processor=processor, train=train, shelf=shelf))
        return len(seen)

    calls(2)  # computes

    assert calls(2) == calls(5) < 10


def test_dropout_below_leaves_everything_as_it_was(bert: Case, shelf: Shelf) -> None:
    plain, _ = bert.fit(PLAN, None)
    weights, result = bert.fit(PLAN, shelf)

    assert cache(result) is None
    assert torch.equal(weights, plain)
    assert not (shelf.store.path / "activations").exists()


def test_options_of_the_loop_go_along(bert: Case, shelf: Shelf) -> None:
    plan = replace(
        PLAN,
        epochs=4,
        frozen="eval",
        gradient_accumulation_steps=2,
        group_by_length=False,
        early_stopping=EarlyStopping(patience=1),
    )
    module, processor, _ = bert.load()
    validation = TEXTS.encode(tiny_rows(16, seed=5), processor)
    names = [name for name, each in module.named_parameters() if each.requires_grad]
    late = ParameterGroup(tuple(n for n in names if "layer.2" in n), lr_scale=0.5, from_epoch=2)

    plain, one = bert.fit(plan, None, validation=validation, groups=(late,))
    weights, other = bert.fit(plan, shelf, validation=validation, groups=(late,))

    # the block that learns late is above the cut from the beginning
    assert cache(other) == "before bert.encoder.layer.2"
    torch.testing.assert_close(weights, plain, rtol=0, atol=1e-5)
    assert one.metrics["best_epoch"] == other.metrics["best_epoch"]


def test_an_interrupted_training_goes_on_bit_for_bit(
    bert: Case, shelf: Shelf, tmp_path: Path
) -> None:
    plan, digests = replace(PLAN, frozen="eval"), list[str]()
    folder = tmp_path / "state"
    folder.mkdir()

    def keep(state: State) -> str:
        digests.append(write_state(folder, state))
        return digests[-1]

    whole, result = bert.fit(plan, shelf, keeper=Keeper(1, keep))
    assert result.trail is not None
    start = read_state(folder, digests[0])
    rest, _ = bert.fit(plan, shelf, replay=Replay(trail=result.trail, start=start))

    assert 1 < start.step < result.metrics["num_steps"]
    assert torch.equal(whole, rest)


def test_a_checkpoint_goes_on_after_what_was_kept_is_gone(
    bert: Case, shelf: Shelf, tmp_path: Path
) -> None:
    """And never with more or less room than before, which would be two trainings in one."""
    plan = replace(PLAN, frozen="eval")
    told: list[str] = []

    def run(place: str, room: Shelf, stop: int = -1) -> tuple[Tensor, FitResult]:
        interruption = Interruption()

        def report(progress: Progress) -> None:
            if progress.phase == "training" and progress.done == stop:
                interruption.request(signal.SIGTERM)

        saver = Saver(
            place=Checkpoints(tmp_path / place, "ab" * 32),
            training=0,
            inputs={},
            interruption=interruption,
            tell=told.append,
        )
        return bert.fit(plan, room, report=report, saver=saver)

    whole, _ = run("whole", shelf)
    with pytest.raises(Interrupted):
        run("cut", shelf, stop=6)
    shutil.rmtree(shelf.store.path / "activations")

    again, _ = run("cut", shelf)

    assert torch.equal(again, whole)
    assert told[-1].startswith("resumed after step 6 of 12")

    with pytest.raises(Interrupted):
        run("other", shelf, stop=6)
    without, _ = run("other", replace(shelf, max_bytes=0))

    assert torch.equal(without, bert.fit(plan, None)[0])
    assert "prefix_cache" in told[-1]


class Stacked(nn.Module):
    """Blocks one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 32)])
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs."""
        for block in self.blocks:
            x = block(x).tanh()
        return self.head(x)


class Leaky(Stacked):
    """What the first block gives gets around the others: at first times nought, later not."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(32, 2)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs."""
        first = self.blocks[0](x).tanh()
        last = self.blocks[2](self.blocks[1](first).tanh())
        return self.head(last) + self.gate(first)


class PointsWithHead(Points):
    def head(self, module: nn.Module) -> tuple[str, ...]:
        return tuple(name for name in ("head", "gate") if hasattr(module, name))


@pytest.mark.parametrize("around", [False, True])
def test_what_gets_around_the_cut_is_noticed(
    around: bool, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MIN_INTENSITY", 0.0)

    def trained(shelf: Shelf | None) -> tuple[Tensor, FitResult]:
        torch.manual_seed(0)
        module = Leaky() if around else Stacked()
        learns = ("blocks.2", "head", "gate")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith(learns))
        job = Job(task=PointsWithHead(), processor=None, train=points(40), shelf=shelf)
        return learned(module), fit(module, PLAN, job)

    _, result = trained(shelf)

    assert cache(result) == (None if around else "before blocks.2")


def test_in_bf16_values_may_differ_by_its_rounding(
    bert: Case, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are run in another order than in training, and each sum may fall to its other neighbour."""
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: True)
    plan = replace(PLAN, frozen="eval", precision="bf16")
    plain, _ = bert.fit(plan, None)

    weights, result = bert.fit(plan, shelf)

    assert cache(result) == "before bert.encoder.layer.2"
    torch.testing.assert_close(weights, plain, rtol=0, atol=3 * plan.learning_rate)


@pytest.mark.parametrize(("number", "factor"), [("fp32", 1.001), ("bf16", 1.1)])
def test_values_that_are_not_those_of_the_network_are_not_used(
    number: Any, factor: float, bert: Case, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(*known: Any) -> activations.Activations:
        kept = activations.write(*known)
        parts = [part._replace(values=part.values * factor) for part in kept.parts]
        return activations.Activations(parts)

    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: True)
    plan = replace(PLAN, frozen="eval", precision=number)
    plain, _ = bert.fit(plan, None)
    monkeypatch.setattr(search, "write", shifted)

    weights, result = bert.fit(plan, shelf)

    assert cache(result) == "none: what is kept is not what reaches bert.encoder.layer.2"
    assert torch.equal(weights, plain)


def test_beyond_the_budget_nothing_is_kept(bert: Case, shelf: Shelf) -> None:
    said: list[Progress] = []
    plan = replace(PLAN, frozen="eval")
    plain, _ = bert.fit(plan, None)
    num_tokens = sum(len(each["input_ids"]) for each in bert.load()[2])

    weights, result = bert.fit(plan, replace(shelf, max_bytes=1000), report=said.append)

    needed = num_tokens * 32 * 4
    assert cache(result) == f"none: {needed} bytes would be needed, 1000 are allowed"
    assert any(cache(result) == each.detail for each in said)
    assert torch.equal(weights, plain)
    assert not (shelf.store.path / "activations").exists()


def test_a_full_disk_is_told(bert: Case, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100})()
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda _: usage)

    with pytest.raises(StoreError, match="frozen blocks take about"):
        bert.fit(replace(PLAN, frozen="eval"), shelf)


def test_sweeps_share_what_is_kept_and_others_do_not(bert: Case, shelf: Shelf) -> None:
    plan = replace(PLAN, epochs=2, frozen="eval")

    def kept() -> set[str]:
        return {each.name for each in (shelf.store.path / "activations").iterdir()}

    bert.fit(plan, shelf)
    first = kept()
    bert.fit(replace(plan, learning_rate=3e-3, epochs=3, batch_size=16), shelf, seed=9)
    assert kept() == first

    bert.fit(plan, replace(shelf, rows="cd" * 32))
    assert len(kept()) == 2

    other_rows = [*ROWS[:-1], {"text": "the film was bad", "label": "bad"}]
    Case(bert.folder, TEXTS, other_rows, bert.train).fit(plan, shelf)
    assert len(kept()) == 3

    module, processor, train = bert.load()
    with torch.no_grad():
        module.get_parameter("bert.encoder.layer.0.output.dense.bias")[0] += 1e-3
    fit(module, plan, Job(task=TEXTS, processor=processor, train=train, shelf=shelf, seed=3))
    assert len(kept()) == 4

    module, processor, train = bert.load()
    with torch.no_grad():
        module.get_parameter("bert.encoder.layer.2.output.dense.bias")[0] += 1e-3
    fit(module, plan, Job(task=TEXTS, processor=processor, train=train, shelf=shelf, seed=3))
    assert len(kept()) == 4, "what is above the cut has no part in it"


def test_damaged_values_are_computed_again(bert: Case, shelf: Shelf) -> None:
    plan = replace(PLAN, frozen="eval")
    whole, _ = bert.fit(plan, shelf)
    (file,) = (shelf.store.path / "activations").glob("*/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)

    again, _ = bert.fit(plan, shelf)

    assert file.read_bytes() != bytes(content)
    assert torch.equal(whole, again)


def test_one_epoch_and_no_room_keep_nothing(bert: Case, shelf: Shelf) -> None:
    _, once = bert.fit(replace(PLAN, epochs=1, frozen="eval"), shelf)
    _, without = bert.fit(replace(PLAN, frozen="eval"), replace(shelf, max_bytes=0))

    assert cache(once) is None
    assert str(cache(without)).startswith("none: ")
    assert without.facts["cache_bytes"] == 0
    assert not (shelf.store.path / "activations").exists()


def test_frozen_blocks_in_evaluation_mode_have_no_dropout(bert: Case) -> None:
    module, processor, train = bert.load()
    modes: dict[str, set[bool]] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(
                lambda part, *_, name=name: modes.setdefault(name, set()).add(part.training)
            )
    fit(module, replace(PLAN, frozen="eval"), Job(task=TEXTS, processor=processor, train=train))

    def of(start: str) -> set[bool]:
        return set().union(*(seen for name, seen in modes.items() if name.startswith(start)))

    # the first look at the network is in training mode everywhere
    assert len(modes) == 8
    assert of("bert.encoder.layer.2") == {True}
    assert of("dropout") == {True}
    assert not any(part.training for part in module.modules()), "modes are as before"


def test_evaluation_mode_makes_the_lower_part_repeat_itself(bert: Case) -> None:
    module, processor, train = bert.load()
    given: dict[bytes, set[bytes]] = {}
    block = module.get_submodule("bert.encoder.layer.1")

    def note(_: object, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            given.setdefault(inputs[0].numpy().tobytes(), set()).add(output.numpy().tobytes())

    block.register_forward_hook(note)
    plan = replace(PLAN, epochs=3, batch_size=len(train), frozen="eval", group_by_length=False)
    fit(module, plan, Job(task=TEXTS, processor=processor, train=train))

    assert given
    assert all(len(outputs) == 1 for outputs in given.values())


@pytest.mark.parametrize("train", [("all",), ("stem", "head")])
def test_evaluation_mode_that_has_no_effect_is_refused(bert: Case, train: tuple[str, ...]) -> None:
    with pytest.raises(TrainingError, match="`frozen: eval` has no effect"):
        Case(bert.folder, TEXTS, ROWS, train).fit(replace(PLAN, frozen="eval"), None)


TWO = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_prefix import PointsWithHead, Stacked, points
from reuselib.lineage.store import Store
from reuselib.training import search
from reuselib.training.activations import Shelf
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import FitPlan
search.MIN_INTENSITY = 0.0
torch.manual_seed(0)
module = Stacked()
for name, parameter in module.named_parameters():
    parameter.requires_grad_(name.startswith(("blocks.2", "head")))
shelf = Shelf(Store(Path(sys.argv[3])), "ab" * 32, 2**30)
plan = FitPlan(epochs=3, batch_size=8, learning_rate=1e-2, precision="fp32")
result = fit(module, plan, Job(task=PointsWithHead(), processor=None, train=points(41), shelf=shelf))
if result.facts["num_processes"] == 1 or torch.distributed.get_rank() == 0:
    torch.save([module.state_dict(), result.facts], sys.argv[1])
if torch.distributed.is_initialized():
    torch.distributed.barrier()  # none may go while another still talks to it
    torch.distributed.destroy_process_group()
"""


def test_two_processes_share_what_one_computes(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    sources = str(Path(__file__).parents[2] / "src")
    environment = os.environ | {
        "PYTHONPATH": sources,
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    elastic = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
    results: dict[int, Any] = {}
    for number, launcher in {1: [], 2: [*elastic, "--rdzv_endpoint=localhost:0"]}.items():
        file = tmp_path / f"{number}.pt"
        known = [str(script), str(file), str(Path(__file__).parent), str(tmp_path / f"s{number}")]
        done = subprocess.run(
            [sys.executable, *launcher, *known],
            env=environment,
            timeout=120,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results[number] = torch.load(file)

    assert results[2][1]["num_processes"] == 2
    assert results[1][1]["prefix_cache"] == results[2][1]["prefix_cache"] == "before blocks.2"
    assert len(list((tmp_path / "s2" / "activations").iterdir())) == 1
    for name, value in results[1][0].items():
        torch.testing.assert_close(results[2][0][name], value, rtol=0, atol=1e-6, msg=name)
