from __future__ import annotations

import random

import numpy as np
import torch

from reuselib.training.seeds import seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_every_source_is_seeded_within_and_untouched_outside() -> None:
    with seeded(1):
        first = draw()
    with seeded(1):
        again = draw()
    with seeded(1, rank=1):
        other = draw()
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))

    with seeded(9):
        outside = draw()
    with seeded(9):
        with seeded(3):
            draw()
        assert draw() == outside
