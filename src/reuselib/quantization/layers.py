"""Layers that hold integers and compute with them. Their tensors are named as compressed-tensors names them.

They are linear layers and embeddings to everybody who asks, such as peft. Their weights do not learn; gradients flow
through them to what lies below, as if inputs had not been rounded (straight-through, Bengio et al., 2013).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reuselib.quantization.grid import restore
from reuselib.quantization.kernels import Kernel, build, figures, wanted
from reuselib.quantization.packing import num_words, unpack

if TYPE_CHECKING:
    from reuselib.quantization.rounding import Rounded
    from reuselib.quantization.schemes import Scheme


class IntegerLinear(nn.Linear):
    """What both layouts share. Weights are [out, in], also in place of a Conv1D, which keeps them transposed."""

    weight_scale: Tensor
    """fp32 [out, groups]."""

    def __init__(self, in_features: int, out_features: int, scheme: Scheme, *, bias: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.scheme = in_features, out_features, scheme
        groups = scheme.grid.num_groups(in_features)
        self.register_buffer("weight_scale", torch.ones(out_features, groups))
        self.bias = _frozen(torch.zeros(out_features)) if bias else None
        self._built: tuple[object, Kernel] | None = None

    def codes(self) -> Tensor:
        """The integers: int8 [out, in]."""
        raise NotImplementedError

    def fill(self, rounded: Rounded, bias: Tensor | None = None) -> None:
        """Take a rounded weight and a bias."""
        state = self.state_dict()
        for name, values in rounded.tensors(self.scheme).items():
            state[name].copy_(values)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias.detach())

    def dequantized(self) -> Tensor:
        """The weights that the integers stand for: fp32 [out, in]."""
        return restore(self.codes(), self.weight_scale)

    @property
    def kernel(self) -> Kernel:
        """What computes this layer now, see `kernels`; built when first asked for, and again if weights change."""
        tensors = (*self._parameters.values(), *self._buffers.values())
        key = (wanted(), *map(_stamp, tensors))
        if self._built is None or self._built[0] != key:
            with torch.no_grad():
                self._built = (key, build(self))
        return self._built[1]

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out], in the input's dtype."""
        if torch.is_grad_enabled() and input.requires_grad:
            return _StraightThrough.apply(input, self)  # type: ignore[no-any-return]
        return self.compute(input)

    def compute(self, inputs: Tensor) -> Tensor:
        """What `forward` gives, without a gradient."""
        rows = inputs.reshape(-1, self.in_features).float()
        return self.kernel(rows).to(inputs.dtype).view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """For print."""
        return f"{self.in_features}, {self.out_features}, {self.scheme}"

    def __getstate__(self) -> dict[str, Any]:
        # a copy builds its own kernel: packed weights can neither be copied nor pickled
        return {**self.__dict__, "_built": None}


class QuantizedLinear(IntegerLinear):
    """One code a byte: the `int-quantized` format."""

    def __init__(self, in_features: int, out_features: int, scheme: Scheme, *, bias: bool) -> None:
        super().__init__(in_features, out_features, scheme, bias=bias)
        self.weight = _frozen(torch.zeros(out_features, in_features, dtype=torch.int8))

    def codes(self) -> Tensor:
        """See `IntegerLinear`."""
        return self.weight.detach()


class PackedLinear(IntegerLinear):
    """Codes side by side in 32-bit integers: the `pack-quantized` format."""

    def __init__(self, in_features: int, out_features: int, scheme: Scheme, *, bias: bool) -> None:
        super().__init__(in_features, out_features, scheme, bias=bias)
        words = num_words(in_features, scheme.grid.bits)
        self.weight_packed = _frozen(torch.zeros(out_features, words, dtype=torch.int32))
        self.register_buffer("weight_shape", torch.tensor([out_features, in_features]))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Restored weights, for whoever asks a linear layer for them: fp32 [out, in]."""
        return self.dequantized()

    def codes(self) -> Tensor:
        """See `IntegerLinear`."""
        return unpack(self.weight_packed.detach(), self.scheme.grid.bits, self.in_features)


class QuantizedEmbedding(nn.Embedding):
    """One code a byte and one scale a row; only the rows that are looked up are restored."""

    weight_scale: Tensor
    """fp32 [rows, 1]."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx, self.max_norm, self.norm_type = padding_idx, None, 2.0
        self.scale_grad_by_freq = self.sparse = False
        self.weight = _frozen(torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(num_embeddings, 1))

    def fill(self, rounded: Rounded, bias: None = None) -> None:
        """Take codes int8 [rows, columns] and scales fp32 [rows, 1]."""
        self.weight.copy_(rounded.codes)
        self.weight_scale.copy_(rounded.scales)

    def dequantized(self) -> Tensor:
        """All rows restored: fp32 [rows, columns]."""
        return restore(self.weight.detach(), self.weight_scale)

    def forward(self, input: Tensor) -> Tensor:
        """Indices [...] to fp32 [..., columns]."""
        return self.weight[input].float() * self.weight_scale[input]


def layer_class(scheme: Scheme) -> type[QuantizedLinear] | type[PackedLinear]:
    """The layout of a scheme's layers."""
    return PackedLinear if scheme.packed else QuantizedLinear


def kernels(module: nn.Module) -> dict[str, float]:
    """How many quantized layers each kernel computes on this machine, see `figures`."""
    layers = [each for each in module.modules() if isinstance(each, IntegerLinear)]
    return figures(Counter(each.kernel.name for each in layers))


class _StraightThrough(torch.autograd.Function):
    """The gradient of a product with the restored weights."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: IntegerLinear) -> Tensor:
        ctx.layer = layer
        return layer.compute(inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.dequantized().to(grad.dtype), None


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _stamp(tensor: Tensor | None) -> object:
    """Changes whenever a tensor is replaced or written to."""
    if tensor is None:
        return None
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, tensor.device
