"""What the weights of a layer become, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reuselib.quantization.grid import Grid

Activations = Literal["token", "tensor"]

INTEGER = ("int8", "int8-weight", "int4-weight")
"""Schemes with integer weights: with 8-bit inputs too, or with inputs as they are."""
HALF = {"bf16": "bfloat16", "fp16": "float16"}
"""Schemes that only store weights in 16 bits, and the name of torch's type."""
KEPT = "none"
"""In place of a scheme: leave the layer as it is."""
GROUP_SIZE = 128
"""Columns that share a scale in a 4-bit layer, unless told otherwise."""


@dataclass(frozen=True)
class Scheme:
    """How one layer is quantized."""

    grid: Grid
    """Of the weights."""
    activations: Activations | None = None
    """Inputs are rounded to 8 bits, with a scale for each token (row) or for the whole tensor; None: left alone."""
    packed: bool = False
    """Several codes are stored in each 32-bit integer, the layout of layers whose inputs are not quantized."""


ROWS = Scheme(Grid(8))
"""Of embeddings: one scale a row, each looked up and restored by itself; and of an output layer tied to one."""


def scheme(
    name: str, *, group_size: int | None = None, activations: Activations = "token"
) -> Scheme:
    """The scheme of that name, one of `INTEGER`.

    Args:
        name: `int8`, `int8-weight` or `int4-weight`.
        group_size: for the two that leave inputs alone; None: 128 for 4 bits, whole rows for 8.
        activations: for `int8`.

    Raises:
        ValueError: there is no such scheme.
    """
    if name == "int8":
        return Scheme(Grid(8, paired=True), activations)
    if name == "int8-weight":
        return Scheme(Grid(8, group_size), packed=True)
    if name == "int4-weight":
        return Scheme(Grid(4, group_size or GROUP_SIZE), packed=True)
    raise ValueError(f"no scheme is called '{name}'; there are: {', '.join((*INTEGER, *HALF))}")
