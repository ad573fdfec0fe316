"""`Prune(channels=...)` as a whole: derived, opened again, proven, and held to the laws."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from chains import run
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.prune import Prune
from reuselib.calibration.plan import Calibration
from reuselib.data import Data, Splits
from reuselib.errors import IncompatibleStep
from reuselib.evidence.prove import claims, prove_step
from reuselib.lineage.store import Store
from reuselib.model import Model
from reuselib.tasks.image_classification import ImageClassification
from reuselib.tasks.module import ModuleTask
from reuselib.testing import LAWS, check_adapter
from reuselib.testing.tiny import (
    tiny_cnn,
    tiny_convnext,
    tiny_images,
    tiny_mobilenet,
    tiny_resnet,
    tiny_vit,
)
from reuselib.training.plan import FitPlan

SHORT = FitPlan(epochs=1, batch_size=8, learning_rate=1e-3)
FEW = Calibration(num_rows=8, batch_size=4)
TASK = ImageClassification(size=32)
BUILDERS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "mobilenet": tiny_mobilenet}


def images() -> Splits:
    rows = tiny_images(16, size=16)
    return Splits.of(rows, rows[:8])


@pytest.mark.parametrize(
    ("name", "step", "stock"),
    [
        ("resnet", Prune(channels=0.5), True),
        (
            "resnet",
            Prune(channels=0.4, scope="global", importance="taylor", calibration=FEW),
            False,
        ),
        ("convnext", Prune(channels=0.5, importance="activation", calibration=FEW), True),
        ("mobilenet", Prune(channels=0.5), False),
    ],
)
def test_the_child_opens_again_and_every_edge_is_proven(tmp_path, name, step, stock):
    base, store, rows = BUILDERS[name](tmp_path / "base"), tmp_path / "store", images()

    execution = run((step, FineTune(fit=SHORT)), base, store, data=rows, task=TASK)

    for child in execution.children:
        internal = child.manifest.definition.internal
        assert bool(internal.rebuild) != stock
        findings = prove_step(child.folder, store=Store(store)).findings
        assert all(finding.holds for finding in findings), findings
    model = execution.model()
    opened = Model.load(execution.children[-1].folder, store=store)
    assert opened.logits(rows.test).equal(model.logits(rows.test))
    few, many = (
        sum(value.numel() for value in weights.values())
        for weights in (claims(execution.children[0].folder, Store(store)).child, _read(base))
    )
    assert few < 0.6 * many
    if stock:
        _opens_in_plain_transformers(execution.children[-1].folder, opened, rows)


def _read(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def _opens_in_plain_transformers(folder: Path, model: Model, rows: Splits) -> None:
    from transformers import AutoModelForImageClassification

    plain = AutoModelForImageClassification.from_pretrained(folder).eval()
    encoded = model.task.encode(rows.test, model.processor)
    batch = model.task.collate(list(encoded), model.processor)
    with torch.inference_mode():
        logits = plain(pixel_values=batch["pixel_values"]).logits
    assert torch.allclose(logits, model.logits(rows.test), atol=1e-6)


def test_a_plain_network_from_python(tmp_path):
    torch.manual_seed(0)
    rows = [{"x": torch.randn(1, 8, 8).numpy(), "y": number % 2} for number in range(16)]
    task = ModuleTask(network=tiny_cnn, criterion=torch.nn.functional.cross_entropy)
    base = tmp_path / "base"
    task.save(tiny_cnn(), None, base)
    steps = (Prune(channels=0.25), FineTune(fit=SHORT), Prune(channels=0.25))

    execution = run(steps, base, tmp_path / "store", data=Splits.of(rows, rows[:8]), task=task)

    opened = Model.load(execution.children[-1].folder, task=task, store=tmp_path / "store")
    assert (opened.module[0].out_channels, opened.module[3].out_channels) == (5, 9)
    test = execution.plan.splits.test
    assert opened.logits(test).equal(execution.model().logits(test))
    for child in execution.children:
        assert all(
            each.holds
            for each in prove_step(child.folder, store=Store(tmp_path / "store")).findings
        )


def test_a_new_head_is_cut_like_the_rest_and_not_claimed_to_be_the_parents(tmp_path):
    rows = [
        {**row, "label": ("a", "b", "c")[i % 3]} for i, row in enumerate(tiny_images(18, size=16))
    ]
    base, store = tiny_resnet(tmp_path / "base"), tmp_path / "store"

    child = run(
        Prune(channels=0.5), base, store, data=Splits.of(rows, rows[:9]), task=TASK
    ).children[0]

    case = claims(child.folder, Store(store))
    assert case.structure["new"] == ["classifier.1.bias", "classifier.1.weight"]
    assert case.child["classifier.1.weight"].shape == (3, 8)
    assert all(finding.holds for finding in prove_step(child.folder, store=Store(store)).findings)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    step, base = Prune(channels=0.5), tiny_resnet(folder / "base")
    child = run(step, base, folder / "store", data=images(), task=TASK).children[0]
    return claims(child.folder, Store(folder / "store"))


class TestProof:
    def failing(self, case, *, step=None, child=None, structure=None):
        step = step or case.adapter
        found = step.prove(case.parents, child or case.child, structure or case.structure)
        return [each.claim for each in found if each.holds is False]

    def test_an_honest_child_passes(self, case):
        assert self.failing(case) == []

    def test_more_than_the_claimed_share(self, case):
        (claim,) = self.failing(case, step=Prune(channels=0.4))
        assert "more than the claimed share of 0.4" in claim

    def test_nothing_left_out(self, case):
        parent = {name: case.parents[0][name] for name in case.parents[0]}
        empty = {**case.structure, "tensors": {}}
        assert self.failing(case, child=parent, structure=empty) == ["something was left out"]

    def test_a_weight_moved_by_a_millionth(self, case):
        child = {name: case.child[name].clone() for name in case.child}
        name = next(iter(case.structure["tensors"]))
        child[name] += 1e-6
        (claim,) = self.failing(case, child=child)
        assert "bit for bit" in claim


@pytest.mark.parametrize("other", [{"heads": 0.5}, {"ffn": 0.5}, {"hidden": 0.5}, {"blocks": (0,)}])
def test_options_for_transformers_do_not_go_with_channels(other):
    with pytest.raises(ValueError, match="channels is for convolutional networks"):
        Prune(channels=0.5, **other)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_beyond_its_bounds(share):
    with pytest.raises(ValueError, match="channels must be a share"):
        Prune(channels=share)


def test_each_kind_of_network_is_told_which_options_are_for_it(tmp_path):
    cases = (
        (tiny_vit, Prune(channels=0.5), ImageClassification()),
        (tiny_resnet, Prune(heads=0.5), TASK),
    )
    for build, step, task in cases:
        base = build(tmp_path / build.__name__)
        with pytest.raises(IncompatibleStep) as caught:
            run(step, base, tmp_path / "store", data=images(), task=task)
        assert caught.value.expected
        assert caught.value.fix


def test_taylor_needs_a_head_that_was_trained(tmp_path):
    rows = [
        {**row, "label": ("a", "b", "c")[i % 3]} for i, row in enumerate(tiny_images(18, size=16))
    ]
    step = Prune(channels=0.5, importance="taylor", calibration=FEW)
    base = tiny_resnet(tmp_path / "base")
    with pytest.raises(IncompatibleStep, match="newly initialised"):
        run(step, base, tmp_path / "store", data=Splits.of(rows, rows[:9]), task=TASK)


def test_pruning_channels_keeps_the_laws(tmp_path):
    """Those that do not try the other adapters, most of which have nothing to do with a convolutional network."""
    from PIL import Image

    for split, seed in (("train", 0), ("test", 1)):
        for number, row in enumerate(tiny_images(16, size=16, seed=seed)):
            path = tmp_path / "rows" / split / row["label"] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(row["image"]).save(path)
    laws = [law for law in LAWS if law not in ("silence", "world_size")]
    check_adapter(
        Prune(channels=0.4, scope="global"),
        base=tiny_resnet(tmp_path / "base"),
        task=TASK,
        data=Data(source=f"imagefolder:{tmp_path / 'rows'}"),
        laws=laws,
    )


def test_nothing_is_left_of_a_refusal(start, bert):
    module, session = start(bert)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(IncompatibleStep):
        Prune(channels=0.5).adapt(module, session)
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
