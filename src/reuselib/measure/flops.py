"""How many floating-point operations a forward pass takes, as torch counts them; a multiply-add is two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_flops(module: nn.Module, forward: Callable[[], object]) -> int:
    """Operations of `forward`, a call of `module`: matrix products, convolutions and attention.

    A layer of integer weights counts as the dense layer that it stands for, whatever its kernel does, so that the
    figure says how much smaller a network is and not how it is computed.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, custom_mapping=_attention_on_cpu())
    with torch.no_grad(), plain(module), counter:
        forward()
    return int(counter.get_total_flops())


@contextmanager
def plain(module: nn.Module) -> Iterator[None]:
    """Within, linear layers with a `forward` of their own multiply by a dense weight of zeros instead.

    Shapes stay what they are; values do not.
    """
    from torch import nn

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, nn.Linear) and type(part).forward is not nn.Linear.forward:
                stack.enter_context(patch.object(part, "forward", _dense(part)))
        yield


def _dense(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    from torch.nn import functional

    def forward(x: Tensor) -> Tensor:
        return functional.linear(x, x.new_zeros(layer.out_features, layer.in_features))

    return forward


def _attention_on_cpu() -> dict[Any, Any]:
    """The fused attention of CPUs, which torch's counter does not know."""
    import torch
    from torch.utils.flop_counter import sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        # the counter hands over shapes in the place of tensors
        return sdpa_flop_count(query, key, value)

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
