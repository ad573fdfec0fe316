from __future__ import annotations

import pytest
import torch
from torch import nn

from reuselib.adapter import as_json
from reuselib.quantization.factors import Factored, Prepared, exponents, factor
from reuselib.quantization.folding import Fold, apply_fold


def record(fold, matrices, noted, transposed=()):
    return Factored(
        source=fold.source,
        targets=fold.targets,
        offset=fold.offset,
        matrices=matrices,
        transposed=transposed,
        exponents=noted,
    )


def test_a_factor_is_recorded_to_an_eighth_of_a_power_of_two():
    wanted = torch.tensor([1.0, 2.0, 0.5, 1.1, 7.3])

    noted = exponents(wanted)

    assert noted[:3] == (0, 8, -8)
    assert ((factor(noted) / wanted).log2().abs() <= 1 / 16).all()
    assert exponents(factor(noted)) == noted


@pytest.mark.parametrize("kind", ["norm", "offset", "linear", "conv1d"])
def test_recorded_factors_give_what_the_network_was_given(kind):
    """Bit for bit, twice in a row, for every kind of layer that takes a factor over."""
    from transformers.pytorch_utils import Conv1D

    source = {"linear": lambda: nn.Linear(8, 6), "conv1d": lambda: Conv1D(6, 8)}.get(
        kind, lambda: nn.LayerNorm(6)
    )()
    module = nn.ModuleDict({"a": source, "b": nn.Linear(6, 5), "c": Conv1D(3, 6)})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    noted = exponents(torch.rand(6) * 4 + 0.1)
    fold = Fold("a", ("b", "c"), offset=kind == "offset")
    matrices = ("b", "c", "a") if kind in ("linear", "conv1d") else ("b", "c")
    transposed = ("a", "c") if kind == "conv1d" else ("c",)
    with torch.no_grad():
        for _ in range(2):
            apply_fold(module, fold, factor(noted))

    one = record(fold, matrices, noted, transposed)
    prepared = Prepared(before, [one, Factored.of(as_json(one))])

    assert set(prepared) == {"a.weight", "a.bias", "b.weight", "c.weight"}
    for name, value in prepared.items():
        assert value.equal(module.state_dict()[name]), name
