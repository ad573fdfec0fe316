"""Round to nearest, and what is stored of a rounded weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.quantization.grid import restore, round_to, scales
from reuselib.quantization.packing import pack

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.quantization.schemes import Scheme


@dataclass(frozen=True)
class Rounded:
    """A weight on a grid."""

    codes: Tensor
    """int8 [out, in]."""
    scales: Tensor
    """fp32 [out, groups]."""

    def restored(self) -> Tensor:
        """What the codes stand for: fp32 [out, in]."""
        return restore(self.codes, self.scales)

    def tensors(self, scheme: Scheme) -> dict[str, Tensor]:
        """What a layer of that scheme stores, by name, as compressed-tensors calls and lays it out."""
        import torch

        if not scheme.packed:
            return {"weight": self.codes, "weight_scale": self.scales}
        return {
            "weight_packed": pack(self.codes, scheme.grid.bits),
            "weight_scale": self.scales,
            "weight_shape": torch.tensor(self.codes.shape),
        }


def nearest(weight: Tensor, scheme: Scheme) -> Rounded:
    """Each weight's nearest code: no weight moves by more than half a step.

    Args:
        weight: floating point [out, in].
        scheme: how the layer is quantized.
    """
    steps = scales(weight, scheme.grid)
    return Rounded(round_to(weight, steps, scheme.grid), steps)


def change(weight: Tensor, rounded: Rounded) -> float:
    """How far a rounded weight is from the weight: the norm of the difference, relative to that of the weight."""
    dense = weight.detach().float()
    return float((rounded.restored() - dense).norm() / dense.norm().clamp_min(1e-30))
