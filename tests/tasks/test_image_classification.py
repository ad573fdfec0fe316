from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from reuselib.data import Splits
from reuselib.errors import DataError, SourceError
from reuselib.tasks.image_classification import ImageClassification
from reuselib.testing.tiny import tiny_images, tiny_resnet, tiny_vit

TASK = ImageClassification(labels=("left", "right"))


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return tiny_vit(tmp_path_factory.mktemp("base") / "vit")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return tiny_resnet(tmp_path_factory.mktemp("base") / "resnet")


def batch_of(task, loaded, rows):
    return task.collate(task.encode(rows, loaded.processor), loaded.processor)


def forward(task, loaded, batch) -> torch.Tensor:
    with torch.inference_mode():
        return task.forward(loaded.module, batch)


def test_pinning_fills_in_the_labels():
    rows = tiny_images()

    assert ImageClassification().pin(Splits.of(rows, rows)).labels == ("left", "right")


def test_pixels_are_those_of_the_image_processor(vit):
    loaded = TASK.load(vit)
    rows = tiny_images(4)

    batch = batch_of(TASK, loaded, rows)

    grey = [Image.fromarray(row["image"]).convert("RGB") for row in rows]
    plain = AutoImageProcessor.from_pretrained(vit, backend="pil")
    expected = plain(grey, return_tensors="pt")["pixel_values"]
    assert torch.equal(batch["pixel_values"], expected)
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["labels"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("size", [(8, 8), (3, 8), (1, 1)])
def test_forms_of_an_image_give_the_same_pixels(vit, size):
    loaded = TASK.load(vit)
    grey = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    colour = np.stack([grey] * 3, axis=-1)
    forms = [grey, grey.tolist(), grey[..., None], colour, Image.fromarray(colour)]
    rows = [{"image": form, "label": "left"} for form in forms]

    pixels = batch_of(TASK, loaded, rows)["pixel_values"]

    assert all(torch.equal(pixels[0], other) for other in pixels)


@pytest.mark.parametrize("value", [np.zeros((8, 8)), "a path", np.full((2, 2), 256), None])
def test_what_is_no_image_is_named_with_its_row(vit, value):
    loaded = TASK.load(vit)
    rows = [*tiny_images(1), {"image": value, "label": "left"}]

    with pytest.raises(DataError, match="row 1 holds"):
        batch_of(TASK, loaded, rows)


def test_a_model_without_image_processor_is_given_one_that_its_child_keeps(resnet, tmp_path):
    task = ImageClassification(labels=("left", "right"), size=16)
    loaded = task.load(resnet)
    batch = batch_of(task, loaded, tiny_images(4))
    before = forward(task, loaded, batch)

    task.save(loaded.module, loaded.processor, tmp_path / "child")

    assert batch["pixel_values"].shape == (4, 3, 16, 16)
    again = task.load(tmp_path / "child")
    assert torch.equal(batch_of(task, again, tiny_images(4))["pixel_values"], batch["pixel_values"])
    assert torch.equal(forward(task, again, batch), before)
    assert loaded.fresh == again.fresh == set()
    assert TASK.load(tmp_path / "child").processor.size == {"height": 16, "width": 16}


def test_a_size_that_the_image_processor_would_not_heed_is_an_error(vit):
    task = ImageClassification(labels=("left", "right"), size=32)

    with pytest.raises(SourceError, match="size is 32"):
        task.load(vit)


@pytest.mark.parametrize("base", ["vit", "resnet"])
def test_a_child_opens_in_plain_transformers_with_equal_bytes(base, tmp_path, request):
    folder = request.getfixturevalue(base)
    task = ImageClassification(labels=("left", "right"))
    loaded = task.load(folder)
    batch = {"pixel_values": torch.rand(2, 3, 16, 16), "labels": torch.tensor([0, 1])}
    before = forward(task, loaded, batch)

    task.save(loaded.module, loaded.processor, tmp_path / "child")
    again = task.load(tmp_path / "child")
    task.save(again.module, again.processor, tmp_path / "grandchild")

    assert task.head(loaded.module) == ("classifier",)
    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "child").eval()
    with torch.inference_mode():
        assert torch.equal(plain(batch["pixel_values"]).logits, before)
    assert plain.config.id2label == {0: "left", 1: "right"}
    for path in (tmp_path / "child").iterdir():
        assert path.read_bytes() == (tmp_path / "grandchild" / path.name).read_bytes()
        assert str(folder.parent).encode() not in path.read_bytes()


def test_a_head_of_another_size_is_fresh(tmp_path):
    loaded = TASK.load(tiny_vit(tmp_path, num_labels=7))

    assert loaded.fresh == {"classifier.weight", "classifier.bias"}
    shapes = {name: value.shape for name, value in TASK.skeleton(tmp_path).state_dict().items()}
    assert shapes == {n: value.shape for n, value in loaded.module.state_dict().items()}


def test_the_loss_is_that_of_transformers_summed(vit):
    loaded = TASK.load(vit)
    batch = batch_of(TASK, loaded, tiny_images(6))
    logits = forward(TASK, loaded, batch)

    expected = loaded.module(**batch).loss.item()

    assert TASK.num_targets(batch) == 6
    assert TASK.loss(logits, batch).item() / 6 == pytest.approx(expected, rel=1e-6)
    found = TASK.metrics(TASK.observe(logits, batch))
    assert found["loss"] == pytest.approx(expected, rel=1e-6)


def test_images_are_read_when_they_are_asked_for(vit):
    class Rows(list):
        asked = 0

        def __getitem__(self, index):
            Rows.asked += 1
            return super().__getitem__(index)

    examples = TASK.encode(Rows(tiny_images(8)), TASK.load(vit).processor)

    assert Rows.asked == 0
    assert len(examples) == 8
    assert len(examples[2:5]) == Rows.asked == 3
