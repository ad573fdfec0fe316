"""Which linear layers of a network are quantized, and to what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reuselib.errors import IncompatibleStep
from reuselib.network.parts import within
from reuselib.network.selectors import select
from reuselib.quantization.schemes import KEPT

if TYPE_CHECKING:
    from torch import nn


def chosen(
    layers: Mapping[str, nn.Module],
    scheme: str,
    special: Mapping[str, str],
    skipped: Collection[str],
) -> dict[str, str]:
    """Name of the scheme of each layer to quantize, in the order of `layers`.

    Args:
        layers: all that could be, by name.
        scheme: of those that nothing else is said about.
        special: of single layers.
        skipped: layers to leave alone unless they are in `special`.

    Raises:
        IncompatibleStep: none is left, or a weight is not finite.
    """
    named = {name: special.get(name, KEPT if name in skipped else scheme) for name in layers}
    named = {name: found for name, found in named.items() if found != KEPT}
    for name in named:
        _require_finite(name, layers[name])
    if named:
        return named
    raise IncompatibleStep(
        "there is no linear layer to quantize" + ("" if layers else " in this network"),
        expected="a layer of type Linear, or Conv1D (of GPT-2), that is not skipped; convolutions stay as they are",
        fix="shorten `skip`" if layers else "use `scheme: bf16`, which takes any network",
    )


def refuse_new(named: Iterable[str], fresh: Collection[str]) -> None:
    """Refuse layers with a weight among those that the base does not hold."""
    new = next((name for name in named if f"{name}.weight" in fresh), "")
    if new:
        raise IncompatibleStep(
            f"{new} is newly initialised (the base does not hold it), so rounding it would keep random values",
            expected="layers that have been trained",
            fix="put `finetune` before, or leave it out of `schemes`",
        )


def skipped(
    module: nn.Module,
    selectors: Sequence[str] | None,
    layers: Collection[str],
    head: Sequence[str],
) -> frozenset[str]:
    """The layers that selectors name; those of the head if there are no selectors.

    Raises:
        IncompatibleStep: a selector names none.
    """
    if selectors is None:
        return frozenset(within(layers, head))
    return frozenset().union(*(_named(module, each, layers, head, "skip") for each in selectors))


def assigned(
    module: nn.Module,
    schemes: Mapping[str, str],
    layers: Collection[str],
    head: Sequence[str],
) -> dict[str, str]:
    """Scheme by layer, from schemes by selector.

    Raises:
        IncompatibleStep: a selector names no layer, or two say different things about one.
    """
    found: dict[str, tuple[str, str]] = {}
    for selector, scheme in sorted(schemes.items()):
        for name in _named(module, selector, layers, head, "schemes"):
            rival, said = found.setdefault(name, (selector, scheme))
            if said != scheme:
                raise IncompatibleStep(
                    f"`schemes` says {said} of {name} by '{rival}', and {scheme} by '{selector}'",
                    expected="one scheme for each layer; the order of the selectors does not count",
                    fix="narrow one of the selectors",
                )
    return {name: scheme for name, (_, scheme) in found.items()}


def _named(
    module: nn.Module, selector: str, layers: Collection[str], head: Sequence[str], key: str
) -> frozenset[str]:
    parameters = select(module, (selector,), head=head)
    found = frozenset(name for name in layers if f"{name}.weight" in parameters)
    if not found:
        raise IncompatibleStep(
            f"the selector '{selector}' in `{key}` names no linear layer that could be quantized",
            expected=f"one that takes some of: {', '.join([*layers][:4])}, ...",
            fix="leave it out, or name other layers",
        )
    return found


def _require_finite(name: str, layer: Any) -> None:
    # a network without weights is only looked at, see `Adapter.outline`
    if not layer.weight.is_meta and not layer.weight.isfinite().all():
        raise IncompatibleStep(
            f"the weight of {name} holds NaN or infinite values",
            expected="finite weights",
            fix="train or get the model again; such weights cannot be rounded",
        )
