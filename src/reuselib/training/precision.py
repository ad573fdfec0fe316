"""In which number format the network is run: never one that this hardware only imitates."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Literal

from reuselib.errors import TrainingError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


def resolve(precision: str, device: torch.device) -> Precision:
    """Turn a plan's `precision` into the one to use on `device`.

    Raises:
        TrainingError: the hardware cannot multiply in the format that was asked for by name.
    """
    native = multiplies_bf16(device)
    if precision == "auto":
        return "bf16" if native else "fp32"
    if precision == "fp32":
        return "fp32"
    if precision == "bf16":
        if native:
            return "bf16"
        raise TrainingError(
            f"precision bf16 was asked for, but this {device.type} does not multiply bf16 natively",
            expected="AVX512-BF16, AMX, an ARM core with bf16, or a GPU with bf16",
            fix="use `precision: auto`, which picks fp32 here; imitated bf16 is many times slower",
        )
    if precision == "fp16":
        if device.type in ("cuda", "xpu", "mps"):
            return "fp16"
        raise TrainingError(
            f"precision fp16 was asked for on a {device.type}", fix="use `precision: auto`"
        )
    raise TrainingError(f"unknown precision {precision!r}", expected="auto, fp32, bf16 or fp16")


def multiplies_bf16(device: torch.device) -> bool:
    """Whether `device` has instructions that multiply bf16, rather than imitates them."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "xpu":
        return torch.xpu.is_bf16_supported()
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # On x86 oneDNN also says yes where it merely converts, so ask for the instructions themselves.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
