from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from reuselib.errors import DataError
from reuselib.tasks import images


def read(folder, *, size=None, **config):
    return images.read_processor(folder, SimpleNamespace(**config), size=size)


def test_the_size_is_what_is_given_else_what_the_network_says_else_usual(tmp_path):
    assert read(tmp_path, size=16, image_size=32).size == {"height": 16, "width": 16}
    assert read(tmp_path, image_size=32).size == {"height": 32, "width": 32}
    assert read(tmp_path, image_size=(8, 24)).size == {"height": 8, "width": 24}
    assert read(tmp_path).size == {"height": 224, "width": 224}


@pytest.mark.parametrize(("num_channels", "shape"), [(1, (1, 4, 4)), (3, (3, 4, 4))])
def test_a_network_for_grey_images_is_shown_grey_images(tmp_path, num_channels, shape):
    processor = read(tmp_path, size=4, num_channels=num_channels)
    rows = [{"x": np.full((4, 4), 255, dtype=np.uint8)}]

    (example,) = images.LazyImages(rows, "x", [1], processor)

    assert example["pixel_values"].shape == shape
    assert np.allclose(example["pixel_values"], 1.0)
    assert example["labels"] == 1


def test_a_transparent_image_loses_its_transparency(tmp_path):
    image = Image.new("RGBA", (4, 4), (255, 255, 255, 0))

    (example,) = images.LazyImages([{"x": image}], "x", [0], read(tmp_path, size=4))

    assert example["pixel_values"].shape == (3, 4, 4)


def test_numbers_that_are_no_bytes_are_no_image():
    with pytest.raises(DataError, match=r"row 3 holds ndarray of shape \(2, 2\) and type float64"):
        images.as_image(np.zeros((2, 2)), 3)
