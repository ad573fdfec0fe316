"""How a quantized layer is computed: the fastest way this machine has, chosen by name, built lazily, never saved.

- `fbgemm`: integers by integers, the core operators of torch for x86 CPUs. With a scale a token, rows do not depend on
  one another, so an output does not change with what else is in the batch. On CPUs whose 16-bit sums could overflow,
  layers that are not on a paired grid (see `grid.Grid.paired`) take their inputs with 7 bits: `fbgemm-7bit`.
- `dequantized`: weights are restored to floating point once and kept; inputs are rounded as the scheme says. The way
  wherever there is no integer kernel, and for layers with weights of 4 or 8 bits and inputs left alone: torch's CPU
  kernels for those (`_weight_int4pack_mm_for_cpu`, `_weight_int8pack_mm`) were measured on an AVX2 machine at 925 and
  456 ms where fp32 takes 11. No faster than fp32, and as large in memory; only the file is small.
- `torchao`: the operators of the package torchao, on request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Protocol

from reuselib.errors import IncompatibleStep, MissingExtra
from reuselib.quantization.grid import fits_pairs

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.quantization.layers import IntegerLinear

KERNELS = ("fbgemm", "fbgemm-7bit", "dequantized", "torchao")

_LEAST = 1.1920929e-07
"""Least step of inputs: fp32's epsilon, as compressed-tensors has it."""

_WANTED: ContextVar[str] = ContextVar("kernel", default="")


class Kernel(Protocol):
    """Computes one layer."""

    name: str
    """One of `KERNELS`."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """[rows, in] to [rows, out], fp32."""
        ...


@contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Compute with another kernel within; layers that it cannot compute keep their own.

    `use_kernel("dequantized")` makes every layer a dense product of torch, to be counted or differentiated as such.

    Raises:
        IncompatibleStep: there is no such kernel.
        MissingExtra: it belongs to a package that is not installed.
    """
    if name not in KERNELS:
        raise IncompatibleStep(f"no kernel is called '{name}'", expected=", ".join(KERNELS))
    if name == "torchao":
        _require_torchao()
    token = _WANTED.set(name)
    try:
        yield
    finally:
        _WANTED.reset(token)


def wanted() -> str:
    """The kernel that `use_kernel` asks for, or ""."""
    return _WANTED.get()


def build(layer: IntegerLinear) -> Kernel:
    """The kernel for a layer as it is now, with its weights laid out as that kernel needs them."""
    asked, integer = wanted(), layer.scheme.activations is not None
    if layer.scheme.activations == "token" and asked == "torchao":
        return Torchao(layer)
    if integer and asked in ("", "fbgemm", "fbgemm-7bit") and _has_fbgemm(layer):
        wide = asked != "fbgemm-7bit" and (not _overflows() or fits_pairs(layer.codes()))
        by_row = layer.scheme.activations == "token"
        return (ByRow if by_row else Whole)(layer, bits=8 if wide else 7)
    return Dequantized(layer)


def rounded_inputs(inputs: Tensor, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Inputs in steps of their scale, and the scale: as compressed-tensors' dynamic schemes have it.

    Args:
        inputs: fp32 [rows, in].
        whole: one range for all rows, which need not be centred on zero, instead of one scale each.

    Returns:
        fp32 [rows, in] whole numbers, 256 different ones at most, and fp32 [rows, 1] or [1, 1].
    """
    if whole:
        return _rounded_together(inputs)
    steps, scale = in_steps(inputs, 127.5)
    return steps.clamp_(-128, 127).round_(), scale


def in_steps(inputs: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Inputs divided by the step with which the largest of a row lies `reach` steps from zero; the steps [rows, 1]."""
    import torch

    # one large tensor serves for both, which spares the time to get memory for another
    steps = inputs.abs()
    scale = steps.amax(dim=1, keepdim=True).div_(reach).clamp_min_(_LEAST)
    return torch.div(inputs, scale, out=steps), scale


def _rounded_together(inputs: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    least, most = torch.aminmax(inputs)
    least, most = least.clamp_max(0.0), most.clamp_min(0.0)
    scale = ((most - least) / 255).clamp_min(_LEAST).view(1, 1)
    zero = (-least / scale).round()
    return ((inputs / scale).round() + zero).clamp(0, 255) - zero, scale


class Dequantized:
    """A dense product with restored weights."""

    name = "dequantized"

    def __init__(self, layer: IntegerLinear) -> None:
        self.weight, self.bias = layer.dequantized(), layer.bias
        self.activations = layer.scheme.activations

    def __call__(self, inputs: Tensor) -> Tensor:
        """See `Kernel`."""
        import torch

        if self.activations is None:
            return torch.nn.functional.linear(inputs, self.weight, self.bias)
        steps, scale = rounded_inputs(inputs, self.activations == "tensor")
        return torch.nn.functional.linear(steps * scale, self.weight, self.bias)


class ByRow:
    """An integer product: each row of inputs is divided by its own scale first, so that one fixed scale serves all."""

    def __init__(self, layer: IntegerLinear, *, bits: int) -> None:
        self.name = _name(bits)
        self.middle = 1 << (bits - 1)
        self.reach = self.middle - 0.5 if bits == 8 else self.middle - 1.0
        self.bias = layer.bias
        self.packed = _packed(layer.codes(), layer.weight_scale[:, 0])

    def __call__(self, inputs: Tensor) -> Tensor:
        """See `Kernel`."""
        import torch

        steps, scale = in_steps(inputs, self.reach)
        # the operator rounds to [0, 255]; with 7 bits, 2 x 127 x 127 leaves room in 16 bits
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        outputs = multiply(steps, 1.0, self.middle, self.packed)
        if self.bias is None:
            return outputs.mul_(scale)
        return torch.addcmul(self.bias, outputs, scale, out=outputs)


class Whole:
    """An integer product in one operator, which finds one range for all inputs by itself."""

    def __init__(self, layer: IntegerLinear, *, bits: int) -> None:
        self.name = _name(bits)
        self.narrow = bits < 8
        self.packed = _packed(layer.codes(), layer.weight_scale[:, 0], layer.bias)

    def __call__(self, inputs: Tensor) -> Tensor:
        """See `Kernel`."""
        import torch

        return torch.ops.quantized.linear_dynamic(inputs, self.packed, self.narrow)


def _name(bits: int) -> str:
    return "fbgemm" if bits == 8 else "fbgemm-7bit"


class Torchao:
    """What torchao does with the same codes and scales."""

    name = "torchao"

    def __init__(self, layer: IntegerLinear) -> None:
        _require_torchao()
        import torch
        from torchao.quantization.granularity import PerRow
        from torchao.quantization.quantize_.workflows.int8.int8_tensor import (
            Int8Tensor,
            QuantizeTensorToInt8Kwargs,
        )

        self.bias = layer.bias
        self.weight = Int8Tensor(
            layer.codes(),
            layer.weight_scale,
            [1, layer.in_features],
            torch.float32,
            act_quant_kwargs=QuantizeTensorToInt8Kwargs(PerRow()),
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        """See `Kernel`."""
        import torch

        return torch.nn.functional.linear(inputs, self.weight, self.bias)


def kept_bytes(layer: IntegerLinear) -> int:
    """What this machine's kernel keeps in memory of a layer besides its tensors: packed integers, or restored weights.

    Of a layer on the meta device, as it would be on a CPU.
    """
    number = layer.in_features * layer.out_features
    return number if layer.scheme.activations is not None and _has_fbgemm(layer) else 4 * number


def _has_fbgemm(layer: IntegerLinear) -> bool:
    import torch

    on_cpu = layer.weight_scale.device.type in ("cpu", "meta")
    return on_cpu and "fbgemm" in torch.backends.quantized.supported_engines


def _packed(codes: Tensor, scales: Tensor, bias: Tensor | None = None) -> object:
    import warnings

    import torch

    engine = torch.backends.quantized.engine
    with warnings.catch_warnings():
        # torch announces that quantized tensors move to torchao; the operators stay
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = "fbgemm"
        try:
            zero_points = torch.zeros(len(scales), dtype=torch.long)
            weight = torch._make_per_channel_quantized_tensor(codes, scales, zero_points, 0)
            return torch.ops.quantized.linear_prepack(weight, bias)
        finally:
            torch.backends.quantized.engine = engine


@cache
def _overflows() -> bool:
    """Whether sums of two products overflow on this CPU: found out by computing some that would."""
    import torch

    codes = torch.full((32, 64), 127, dtype=torch.int8)
    packed = _packed(codes, torch.ones(32))
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    found = multiply(torch.full((4, 64), 127.0), 1.0, 128, packed)
    return bool((found != 64 * 127 * 127).any())


def _require_torchao() -> Callable[..., object]:
    import logging
    import warnings

    # it complains about GPU libraries that its CPU package lacks
    logging.getLogger("torchao").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization import quantize_
    except ImportError as error:
        raise MissingExtra(
            "the kernel 'torchao' needs the package torchao",
            fix="pip install 'reuselib[quant]'",
        ) from error
    return quantize_


def figures(kernels: Mapping[str, int]) -> dict[str, float]:
    """How many layers each kernel computes, as figures: `layers_on_fbgemm` and the like."""
    return {f"layers_on_{name}": float(count) for name, count in sorted(kernels.items())}
