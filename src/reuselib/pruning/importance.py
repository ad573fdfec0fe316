"""How much each head, FFN unit and hidden channel of a transformer matters: what matters least can go.

- magnitude: the Euclidean norm of all weights that would go with the unit (Li et al., 2017,
  https://arxiv.org/abs/1608.08710). Needs no rows.
- activation: the mean of |x| over tokens (Hu et al., 2016, https://arxiv.org/abs/1607.03250; for transformers as in
  Minitron, Muralidharan et al., 2024, https://arxiv.org/abs/2407.14679).
- taylor: the mean over rows of |x . dL/dx|, summed over the row's tokens: to first order, by how much the row's loss
  changes if the unit is silenced (Molchanov et al., 2017, https://arxiv.org/abs/1611.06440; for heads Michel et al.,
  2019, https://arxiv.org/abs/1905.10650).
- random: uniform in [0, 1), from torch's generator. The yardstick of the others.

x is what the next layer reads: the inputs of the layer behind the heads or the units, and for a hidden channel the
hidden state that enters each block. Padded positions do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from reuselib.errors import TrainingError
from reuselib.network.axes import HIDDEN, layout
from reuselib.network.families import Family, family

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.task import Batch, Task

Measure: TypeAlias = Literal["magnitude", "taylor", "activation", "random"]
Scores: TypeAlias = "Mapping[str, Tensor]"
"""By axis (`Attention.heads_axis`, `Attention.groups_axis`, `FeedForward.axis`, `HIDDEN`): fp64 [units]."""
NEEDS_ROWS = frozenset({"taylor", "activation"})


def by_weights(module: nn.Module, *, hidden: bool) -> Scores:
    """Score by magnitude.

    Args:
        module: the network.
        hidden: also score hidden channels, which needs every tensor of the network to be in its family's table.

    Raises:
        IncompatibleStep: the network's family has no table.
    """
    import torch

    parts = layout(module, hidden=hidden)
    state = module.state_dict()
    squares = {name: torch.zeros(axis.size).double() for name, axis in parts.axes.items()}
    seen: set[tuple[int, str]] = set()
    for name, dims in parts.tensors.items():
        weight = state[name].double()
        for dim, runs in enumerate(dims):
            start = 0
            for axis, width in runs:
                length = parts.axes[axis].size * width
                if (key := (state[name].data_ptr(), f"{axis} {dim} {start}")) not in seen:
                    seen.add(key)  # a tied tensor counts once
                    piece = weight.narrow(dim, start, length).movedim(dim, 0)
                    squares[axis] += piece.reshape(parts.axes[axis].size, -1).square().sum(1)
                start += length
    return {name: each.sqrt() for name, each in squares.items()}


def by_chance(module: nn.Module) -> Scores:
    """Score at random, in the order of the blocks."""
    import torch

    sizes = {place.axis: place.num_units for place in _places(family(module))}
    return {axis: torch.rand(size, dtype=torch.float64) for axis, size in sizes.items()}


def by_rows(
    module: nn.Module,
    batches: Sequence[Batch],
    task: Task,
    measure: Literal["taylor", "activation"],
) -> Scores:
    """Score by what rows show.

    Args:
        module: the network; it is put in evaluation mode and otherwise left as it is.
        batches: collated rows with targets; `attention_mask`, if there is one, says which positions are padded.
        task: gives outputs and loss.
        measure: `taylor` or `activation`.

    Raises:
        IncompatibleStep: the network's family has no table.
        TrainingError: a score is not finite.
    """
    module.eval()
    places = _places(family(module))
    watch = _Watch(measure == "taylor")
    handles = [
        module.get_submodule(place.module).register_forward_pre_hook(
            watch.hook(place), with_kwargs=True
        )
        for place in places
    ]
    try:
        for number, batch in enumerate(batches):
            watch.begin(batch, batch.get("attention_mask"))
            watch.run(module, task)
            _refuse_not_finite(watch.totals, number)
    finally:
        for handle in handles:
            handle.remove()
    return watch.means()


@dataclass(frozen=True)
class _Place:
    """Where units can be seen: the module whose first input they are."""

    module: str
    axis: str
    num_units: int


def _places(found: Family) -> list[_Place]:
    places = [_Place(block.name, HIDDEN, found.hidden_size) for block in found.blocks]
    for block in found.blocks:
        places += [_Place(a.output, a.heads_axis, a.num_heads) for a in block.attentions]
        part = block.feed_forward
        places.append(_Place(part.down, part.axis, part.num_units))
    return places


@dataclass
class _Watch:
    """Sums up what the hooks see."""

    taylor: bool
    totals: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    gates: dict[str, list[Tensor]] = field(default_factory=dict)
    """Ones that were multiplied into the values: the loss's gradient by them is x . dL/dx. For each [rows, units]."""
    batch: Batch = field(default_factory=dict)
    mask: Tensor | None = None

    def begin(self, batch: Batch, mask: Tensor | None) -> None:
        self.batch, self.mask, self.gates = batch, mask, {}

    def run(self, module: nn.Module, task: Task) -> None:
        import torch

        if not self.taylor:
            with torch.no_grad():
                task.forward(module, self.batch)
            return
        with torch.enable_grad():
            loss = task.loss(task.forward(module, self.batch), self.batch)
        gates = [gate for each in self.gates.values() for gate in each]
        slopes = iter(torch.autograd.grad(loss, gates))
        for axis, each in self.gates.items():
            change = sum(next(slopes).double() for _ in each)
            self._add(axis, change.abs().sum(0), len(change))  # type: ignore[union-attr, arg-type]

    def hook(self, place: _Place) -> Any:
        def see(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            name = "hidden_states"
            value: Tensor = args[0] if args else kwargs[name]
            changed = self._see(place, value)
            if changed is None:
                return None
            return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, name: changed})

        return see

    def _see(self, place: _Place, value: Tensor) -> Tensor | None:
        """Take note of a value [rows, tokens, units x width]; what to put in its place, if anything."""
        units = value.reshape(*value.shape[:-1], place.num_units, -1)
        real = self._real(value)
        if not self.taylor:
            size = units.detach().double().abs().mean(-1) * real
            self._add(place.axis, size.sum((0, 1)), int(real.sum()))
            return None
        gate = value.new_ones(len(value), place.num_units, requires_grad=True)
        self.gates.setdefault(place.axis, []).append(gate)
        return (units * (gate[:, None] * real + (1 - real))[..., None]).reshape(value.shape)

    def _real(self, value: Tensor) -> Tensor:
        """1 where a position is not padded: [rows, tokens, 1]."""
        if self.mask is None or self.mask.shape != value.shape[:2]:
            return value.new_ones(*value.shape[:2], 1)
        return self.mask.to(value.dtype)[..., None]

    def _add(self, axis: str, amount: Tensor, count: int) -> None:
        self.totals[axis] = self.totals[axis] + amount if axis in self.totals else amount
        self.counts[axis] = self.counts.get(axis, 0) + count

    def means(self) -> Scores:
        return {axis: total / self.counts[axis] for axis, total in self.totals.items()}


def _refuse_not_finite(totals: Mapping[str, Tensor], number: int) -> None:
    for axis, total in totals.items():
        if not total.isfinite().all():
            raise TrainingError(
                f"batch {number} of the calibration rows gives values at {axis.partition(':')[0]} that are not finite",
                expected="finite activations and a finite loss on every row",
                fix="look at the rows and at the model before this step; `importance: magnitude` needs no rows",
            )
