"""What goes into a layer: statistics of its inputs over many rows, added up batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from reuselib.errors import IncompatibleStep, TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYERS = ("Linear", "Conv1D", "NonDynamicallyQuantizableLinear", "Conv2d")
"""Types of layers whose inputs can be looked at; Conv1D is that of GPT-2, which keeps its weight as [in, out]."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The inputs x of one layer over all calibration rows; padded positions do not count.

    A token is one position of a row, or a row if there are no positions. For a Conv2d, a token is one place of the
    kernel, and its features are the columns of `as_matrix`.
    """

    num_tokens: int
    norm: Tensor
    """Euclidean norm of each feature over all tokens: fp32 [in]."""
    abs_mean: Tensor
    """Mean of |x| of each feature: fp32 [in]."""
    abs_max: Tensor
    """Maximum of |x| of each feature: fp32 [in]."""
    gram: Tensor | None = None
    """Mean of x x^T over the tokens: fp32 [in, in]; None unless it was asked for. Layers that are fed with one and the
    same tensor, such as query, key and value, share it: do not change it in place. The mean squared change of the
    layer's outputs is `tr(D gram D^T)` if its weight changes by D."""

    def divided(self, factor: Tensor) -> Statistics:
        """As they would be if each input were divided by its `factor`: positive, [in]."""
        return Statistics(
            num_tokens=self.num_tokens,
            norm=self.norm / factor,
            abs_mean=self.abs_mean / factor,
            abs_max=self.abs_max / factor,
            gram=None if self.gram is None else self.gram / factor / factor[:, None],
        )


def as_matrix(layer: nn.Module) -> Tensor:
    """The weight as [out, in]: a view of its memory, so that `copy_` into it changes the layer.

    Linear: as it is. Conv1D: transposed. Conv2d: [out, channels x height x width of the kernel].

    Raises:
        IncompatibleStep: another type of layer, or a convolution in groups, whose outputs see only a part of the
            channels.
    """
    weight: Tensor = layer.weight.detach()  # type: ignore[assignment]
    kind = type(layer).__name__
    if kind == "Conv1D":
        return weight.T
    if kind == "Conv2d" and layer.groups == 1:
        return weight.flatten(1)
    if kind in LAYERS and kind != "Conv2d":
        return weight
    what = "a convolution in groups" if kind == "Conv2d" else f"of type {kind}"
    raise IncompatibleStep(
        f"a layer to calibrate is {what}",
        expected="Linear, Conv1D, or Conv2d with groups=1",
        fix="leave it out of the selectors",
    )


class Call(NamedTuple):
    """A layer was called."""

    name: str
    layer: nn.Module
    value: Tensor
    """What went in."""
    version: int
    """The number of times it had been changed in place."""

    def require_unchanged(self) -> None:
        """Refuse to count what is no longer what the layer saw."""
        if self.value._version != self.version:
            raise IncompatibleStep(
                f"the network changes the input of {self.name} in place after the layer has used it",
                expected="inputs that stay as they are until the block ends",
                fix="let the network work out of place, such as `nn.ReLU()` without `inplace`",
            )


@dataclass
class Recorder:
    """Adds up what goes into the layers of one block. Layers fed with the same tensor are counted once."""

    gram: bool
    totals: dict[tuple[str, ...], _Total] = field(default_factory=dict)
    """By the layers that share an input."""

    def add(self, seen: Sequence[Call], mask: Tensor | None, at: int) -> None:
        """Count one batch.

        Args:
            seen: in order.
            mask: [rows, tokens], 0 where padded; None if nothing is.
            at: number of the batch, for messages.

        Raises:
            TrainingError: an input is not finite.
            IncompatibleStep: an input was changed in place after it was used.
        """
        shared: dict[int, list[Call]] = {}
        for call in seen:
            call.require_unchanged()
            shared.setdefault(id(call.value), []).append(call)
        for calls in shared.values():
            first = calls[0]
            features = _features(first.layer, first.value, mask)
            _require_finite(first, features, at)
            key = tuple(call.name for call in calls)
            self.totals.setdefault(key, _Total()).add(features, gram=self.gram)

    def statistics(self, names: Sequence[str]) -> dict[str, Statistics]:
        """By layer, in the order of `names`.

        Raises:
            IncompatibleStep: no row reached a layer.
        """
        found: dict[str, Statistics] = {}
        done: dict[tuple[tuple[str, ...], ...], Statistics] = {}
        for name in names:
            keys = tuple(key for key in self.totals if name in key)
            if not keys:
                raise IncompatibleStep(
                    f"no calibration row reaches the layer {name}",
                    expected="layers that the network uses",
                    fix="leave it out of the selectors",
                )
            if keys not in done:
                done[keys] = _joined([self.totals[key] for key in keys])
            found[name] = done[keys]
        return found


@dataclass
class _Total:
    num_tokens: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, features: Tensor, *, gram: bool) -> None:
        """Add tokens: fp32 [tokens, in]."""
        sizes = features.abs()
        new = {
            "square": features.square().sum(dim=0),
            "abs": sizes.sum(dim=0),
        }
        if gram:
            new["gram"] = features.T @ features
        largest = sizes.amax(dim=0)
        before = self.sums.get("max", largest)
        for name, value in new.items():
            if name in self.sums:
                self.sums[name] += value
            else:
                self.sums[name] = value
        self.sums["max"] = before.maximum(largest)
        self.num_tokens += len(features)


def _joined(totals: Sequence[_Total]) -> Statistics:
    """The totals of one layer; several if it is called with inputs of its own besides shared ones."""
    num_tokens = sum(total.num_tokens for total in totals)

    def added(name: str) -> Tensor:
        return sum((total.sums[name] for total in totals[1:]), totals[0].sums[name])

    largest = totals[0].sums["max"]
    for total in totals[1:]:
        largest = largest.maximum(total.sums["max"])
    return Statistics(
        num_tokens=num_tokens,
        norm=added("square").sqrt(),
        abs_mean=added("abs") / num_tokens,
        abs_max=largest,
        gram=added("gram") / num_tokens if "gram" in totals[0].sums else None,
    )


def _features(layer: nn.Module, value: Tensor, mask: Tensor | None) -> Tensor:
    """Inputs of a layer as fp32 [tokens, in], without padding."""
    value = value.detach().float()
    if type(layer).__name__ == "Conv2d":
        from torch.nn import functional

        as_matrix(layer)
        if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            columns = functional.unfold(
                value, layer.kernel_size, layer.dilation, layer.padding, layer.stride
            )
            return columns.transpose(1, 2).flatten(0, 1)
        raise IncompatibleStep(
            f"a convolution pads by '{layer.padding}' with '{layer.padding_mode}'",
            expected="a number of zeros",
            fix="leave it out of the selectors",
        )
    if mask is not None and value.shape[:2] == mask.shape:
        return value[mask.bool()]
    if mask is not None and value.ndim == 2 and len(value) == mask.numel():
        return value[mask.flatten().bool()]
    return value.flatten(0, -2)


def _require_finite(call: Call, features: Tensor, at: int) -> None:
    if bool(features.isfinite().all()):
        return
    value = call.value
    rows = value.flatten(1).isfinite().all(dim=1) if value.ndim > 1 else value.isfinite()
    bad = [row + 1 for row, fine in enumerate(rows.tolist()) if not fine]
    raise TrainingError(
        f"calibration: the inputs of the layer {call.name} are not finite in batch {at + 1}, row {bad[0]} of it",
        expected="finite inputs and weights",
        fix="look for NaN or infinity in the data, and in the weights before this layer",
    )
