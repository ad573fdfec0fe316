"""Putting quantized layers in the place of a network's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reuselib.errors import IncompatibleStep
from reuselib.network.layers import matrix as whole_matrix
from reuselib.quantization.rounding import nearest
from reuselib.quantization.schemes import ROWS, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.quantization.layers import IntegerLinear, QuantizedEmbedding

LINEAR = ("Linear", "Conv1D")
"""Types of layers that can be replaced, exactly these: a class derived from one may read its weight in its own way."""


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that can be quantized, by name: those with a weight that no other layer shares."""
    layers = {
        name: layer for name, layer in module.named_modules() if type(layer).__name__ in LINEAR
    }
    shared = Counter(
        id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False)
    )
    return {name: layer for name, layer in layers.items() if shared[id(layer.weight)] == 1}


def matrix(layer: Any) -> Tensor:
    """The weight of a linear layer as [out, in], without its gradient."""
    return whole_matrix(layer).detach()


def replace_linear(module: nn.Module, name: str, scheme: Scheme) -> IntegerLinear:
    """Put an empty quantized layer in the place of a linear one, and return it.

    Raises:
        IncompatibleStep: the scheme's groups do not divide the layer's inputs.
    """
    from reuselib.quantization.layers import layer_class

    layer = module.get_submodule(name)
    num_outputs, num_inputs = matrix(layer).shape
    require_groups(name, num_inputs, scheme)
    bias = layer.bias is not None
    twin = layer_class(scheme)(num_inputs, num_outputs, scheme, bias=bias)
    module.set_submodule(name, twin.to(layer.weight.device).train(layer.training))  # type: ignore[arg-type]
    return twin


def require_groups(name: str, num_inputs: int, scheme: Scheme) -> None:
    """Refuse a group size that does not divide a layer's inputs, and say which would."""
    size = scheme.grid.group_size
    if size is None or num_inputs % size == 0:
        return
    fitting = [each for each in (256, 192, 128, 96, 64, 48, 32, 16, 8) if num_inputs % each == 0]
    raise IncompatibleStep(
        f"group_size={size} does not divide the {num_inputs} inputs of {name}",
        expected=f"for this layer, one of: {', '.join(map(str, fitting or [num_inputs]))}",
        fix="set group_size to a size that divides all layers, or leave this one out with "
        f'`schemes: {{"{name}": none}}`',
    )


def token_tables(module: nn.Module) -> list[list[str]]:
    """Embeddings of tokens: for each, its places, with those of the output layers that share it.

    Raises:
        IncompatibleStep: the network has none that can be quantized.
    """
    from torch import nn

    asked = hasattr(module, "get_input_embeddings")
    candidates: list[Any] = [module.get_input_embeddings()] if asked else [*module.modules()]  # type: ignore[operator]
    # a class derived from nn.Embedding may do more than look up, and clipping norms would change the table
    found = [each for each in candidates if type(each) is nn.Embedding and each.max_norm is None]
    if not found:
        kind = f", but {type(candidates[0]).__name__}" if asked else ""
        raise IncompatibleStep(
            f"embeddings=int8 was asked for, but this network has no table of tokens to quantize{kind}",
            expected="a network whose inputs go through an nn.Embedding",
            fix="leave `embeddings` out",
        )
    tables: dict[int, list[str]] = {id(each.weight): [] for each in found}
    for name, each in module.named_modules(remove_duplicate=False):
        if type(each) in (nn.Embedding, nn.Linear) and id(each.weight) in tables:
            tables[id(each.weight)].append(name)
    return [*tables.values()]


def replace_table(
    module: nn.Module, places: Sequence[str]
) -> dict[str, QuantizedEmbedding | IntegerLinear]:
    """Put empty quantized layers in the places that share a table; they share the codes afterwards.

    Each keeps scales of its own, a small copy: readers of the format look for them beside every layer.
    """
    twins: dict[int, QuantizedEmbedding | IntegerLinear] = {}
    found = {name: module.get_submodule(name) for name in places}
    for layer in found.values():
        if id(layer) not in twins:
            twins[id(layer)] = _twin(layer)
    shared = twins[id(found[places[0]])].weight
    for twin in twins.values():
        twin.weight = shared  # type: ignore[assignment]
    for name, layer in found.items():
        module.set_submodule(name, twins[id(layer)])
    return {name: twins[id(layer)] for name, layer in found.items()}


def round_layers(module: nn.Module, schemes: Mapping[str, Scheme]) -> None:
    """Replace linear layers by their twins, rounded to the nearest."""
    for name, how in schemes.items():
        layer: Any = module.get_submodule(name)
        rounded = nearest(matrix(layer), how)
        replace_linear(module, name, how).fill(rounded, layer.bias)


def round_tables(module: nn.Module, tables: Sequence[Sequence[str]]) -> None:
    """Replace embeddings, and what shares them, by their twins."""
    for places in tables:
        before: dict[str, Any] = {name: module.get_submodule(name) for name in places}
        rounded = nearest(matrix(before[places[0]]), ROWS)
        for name, twin in replace_table(module, places).items():
            twin.fill(rounded, getattr(before[name], "bias", None))


def _twin(layer: Any) -> QuantizedEmbedding | IntegerLinear:
    from torch import nn

    from reuselib.quantization.layers import QuantizedEmbedding, QuantizedLinear

    if type(layer) is nn.Embedding:
        twin: Any = QuantizedEmbedding(layer.num_embeddings, layer.embedding_dim, layer.padding_idx)
    else:
        bias = layer.bias is not None
        twin = QuantizedLinear(layer.in_features, layer.out_features, ROWS, bias=bias)
    return twin.to(layer.weight.device).train(layer.training)
