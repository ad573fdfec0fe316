from __future__ import annotations

import pytest
import torch

from reuselib.errors import TrainingError
from reuselib.training.watch import Seen, Watch


def test_a_figure_is_looked_at_at_once_on_a_cpu() -> None:
    watch = Watch()
    watch.see(Seen(0, 0, "the loss", torch.tensor(1.0), [1]))
    assert not watch.waiting

    with pytest.raises(TrainingError, match=r"the loss is inf at optimizer step 7 \(epoch 2\)"):
        watch.see(Seen(7, 2, "the loss", torch.tensor(float("inf")), [1, 2]))


def test_the_first_bad_figure_is_named_when_several_wait() -> None:
    values = [1.0, float("nan"), float("inf")]
    watch = Watch([Seen(at, 0, "the loss", torch.tensor(v), [at]) for at, v in enumerate(values)])

    with pytest.raises(TrainingError, match=r"nan at optimizer step 1 .* rows \[1\]"):
        watch.look()


def test_many_rows_are_shortened() -> None:
    with pytest.raises(TrainingError, match=r"31, \.\.\. 68 more\]"):
        Watch().see(Seen(0, 0, "the loss", torch.tensor(float("nan")), range(100)))
