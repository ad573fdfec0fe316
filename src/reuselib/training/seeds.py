"""Every source of chance a run draws from, seeded together and given back as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int, rank: int = 0) -> Iterator[None]:
    """Seed Python, NumPy and torch within, and restore their states afterwards.

    Args:
        seed: of the run.
        rank: each process draws differently, so that dropout differs between the rows of a batch.
    """
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        random.seed(seed + rank)
        np.random.seed((seed + rank) % 2**32)
        torch.manual_seed(seed + rank)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
