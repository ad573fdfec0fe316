"""Go through a network block by block with a few rows: each block sees what the changed blocks before it give.

The inputs of the first block are computed once. Then, for each block: all rows go through it while the inputs of its
layers are added up; the caller may change its weights; the rows go through it again, and what comes out feeds the next
block. So in memory there are, besides the model, the inputs of one block for all rows, the activations of that block
for one batch, and the statistics of its layers: never the activations of the whole network. This is how GPTQ (Frantar
et al., 2022, https://arxiv.org/abs/2210.17323) reaches large models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from reuselib.calibration.statistics import Call, Recorder, Statistics, as_matrix
from reuselib.calibration.wiring import Link, Wire, last_uses, leaves, mapped, wiring
from reuselib.network.parts import block_names, within

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.task import Batch, Task


@dataclass(frozen=True)
class Visit:
    """One block, with what went into its layers; the moment to change them."""

    block: str
    """Name of the module; empty for the layers outside of all blocks, which come last."""
    layers: Mapping[str, Statistics]
    """By name of the layer in the whole network, in the order asked for."""
    outputs: Callable[[], list[Tensor]]
    """Runs the first batch through the block as it is now, and gives what comes out; the whole network if there is no
    block. For checks, such as whether a change leaves the outputs as they were."""


def stream(
    module: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    layers: Sequence[str],
    *,
    gram: bool = True,
) -> Iterator[Visit]:
    """Visit the blocks that hold `layers`, first to last, with the statistics of what goes into these.

    Between two visits the caller changes weights, or replaces layers, as it likes; later statistics are of the
    changed network. Layers outside of the blocks come last, together; a network without blocks is one such visit.
    Works for any network, on the device it is on: how blocks feed one another is found out by watching. The same
    module, rows and layers give bit-equal statistics on a CPU.

        for visit in stream(module, run.task, run.batches(128), ["encoder.layer.0.output.dense"]):
            for name, statistics in visit.layers.items():
                weight = as_matrix(module.get_submodule(name))  # [out, in]
                weight.copy_(solve(weight, statistics.gram))  # under torch.no_grad()

    Args:
        module: the network; in evaluation mode within, as it was afterwards.
        task: what it is for: how a batch goes through it, and what its head is.
        batches: of calibration rows, as `Run.batches` gives them. `attention_mask` says what is padding.
        layers: names of Linear, Conv1D or Conv2d modules, such as `select_modules` gives.
        gram: whether to add up [in, in] products as well, which GPTQ, SparseGPT and AWQ need; Wanda and SmoothQuant
            do not.

    Raises:
        IncompatibleStep: a layer is of another type, or no row reaches it.
        TrainingError: an input is NaN or infinite; the message names the layer and the row.
    """
    for name in layers:
        as_matrix(module.get_submodule(name))
    if not batches or not layers:
        return
    with _evaluating(module):
        run = _Stream(module, task, batches, gram)
        yield from run.blocks(layers)
        inside = tuple(link.block for link in run.links)
        outside = [name for name in layers if not any(within((name,), inside))]
        if outside:
            yield Visit("", run.everywhere(outside), run.outputs)


@dataclass
class _Stream:
    module: nn.Module
    task: Task
    batches: Sequence[Batch]
    gram: bool
    links: tuple[Link, ...] = ()
    pools: list[dict[Wire, Tensor]] = field(default_factory=list)
    """Of each batch: the tensors that later blocks are fed with."""

    def __post_init__(self) -> None:
        import torch

        names = block_names(self.module, self.task.head(self.module))
        with torch.no_grad():
            self.links = wiring(self._forward, self.module, names, self.batches)
        self.pools = [{} for _ in self.batches]

    def blocks(self, layers: Sequence[str]) -> Iterator[Visit]:
        """Visit those that hold layers; the others only pass on."""
        held = [list(within(layers, (link.block,))) for link in self.links]
        last = max((index for index, names in enumerate(held) if names), default=-1)
        uses = last_uses(self.links[: last + 1])
        for index in range(last + 1):
            calls = self._calls(index)
            if held[index]:
                layers = self._observe(index, calls, held[index])
                outputs = partial(self._outputs, index, calls)
                yield Visit(self.links[index].block, layers, outputs)
            if index < last:
                self._advance(index, calls, uses)

    def outputs(self) -> list[Tensor]:
        """Of the whole network, for the first batch."""
        import torch

        with torch.no_grad():
            return list(leaves(self._forward(self.batches[0]), torch.Tensor))

    def _outputs(self, index: int, calls: Sequence[Any]) -> list[Tensor]:
        import torch

        with torch.no_grad():
            return list(leaves(self._through(index, calls[0]), torch.Tensor))

    def everywhere(self, names: Sequence[str]) -> dict[str, Statistics]:
        """Statistics of layers anywhere, from one pass through the whole network."""
        import torch

        recorder = Recorder(self.gram)
        with torch.no_grad(), _listening(self.module, names) as seen:
            for at, batch in enumerate(self.batches):
                self._forward(batch)
                recorder.add(seen, batch.get("attention_mask"), at)
                seen.clear()
        return recorder.statistics(names)

    def _forward(self, batch: Mapping[str, Tensor]) -> object:
        device = next(self.module.parameters()).device
        return self.task.forward(
            self.module, {name: each.to(device) for name, each in batch.items()}
        )

    def _calls(self, index: int) -> list[Any]:
        """The arguments of a block, `(args, kwargs)`, for each batch."""
        import torch

        link = self.links[index]
        if not link.fresh:
            return [mapped(link.call, Wire, pool.__getitem__) for pool in self.pools]
        with torch.no_grad():
            calls = [self._capture(link.block, batch) for batch in self.batches]
        for pool, call in zip(self.pools, calls, strict=True):
            wires = leaves(link.call, Wire)
            pool.update(zip(wires, leaves(call, torch.Tensor), strict=True))
        return calls

    def _capture(self, block: str, batch: Batch) -> Any:
        """Run the network up to a block."""

        def stop(_: nn.Module, args: Any, kwargs: Any) -> None:
            raise _Reached((args, kwargs))

        handle = self.module.get_submodule(block).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self._forward(batch)
        except _Reached as reached:
            return reached.call
        finally:
            handle.remove()
        raise AssertionError(f"{block} was called before, but not now")

    def _observe(
        self, index: int, calls: Sequence[Any], names: Sequence[str]
    ) -> dict[str, Statistics]:
        import torch

        recorder = Recorder(self.gram)
        with torch.no_grad(), _listening(self.module, names) as seen:
            for at, (batch, call) in enumerate(zip(self.batches, calls, strict=True)):
                self._through(index, call)
                recorder.add(seen, batch.get("attention_mask"), at)
                seen.clear()
        return recorder.statistics(names)

    def _advance(self, index: int, calls: list[Any], uses: Mapping[Wire, int]) -> None:
        """Run a block as it is now, and keep of what it gives what later blocks need."""
        import torch

        needed = any(wire.block == index and wire.side == "out" for wire in uses)
        for at, pool in enumerate(self.pools):
            call, calls[at] = calls[at], None
            if needed:
                with torch.no_grad():
                    given = leaves(self._through(index, call), torch.Tensor)
                pool.update({Wire(index, "out", n): each for n, each in enumerate(given)})
            for wire in [wire for wire in pool if uses.get(wire, -1) <= index]:
                del pool[wire]

    def _through(self, index: int, call: Any) -> object:
        import torch

        link = self.links[index]
        if link.overwrites:
            call = mapped(call, torch.Tensor, torch.clone)
        args, kwargs = call
        return self.module.get_submodule(link.block)(*args, **kwargs)


class _Reached(Exception):
    """The block whose inputs are wanted is about to be called."""

    def __init__(self, call: Any) -> None:
        self.call = call
        super().__init__()


@contextmanager
def _listening(module: nn.Module, names: Sequence[str]) -> Iterator[list[Call]]:
    """Note every call of the named layers."""
    from torch import Tensor

    seen: list[Call] = []

    def listen(name: str, layer: nn.Module) -> Any:
        def note(layer: nn.Module, args: Any, kwargs: Any) -> None:
            value = next(leaves((args, kwargs), Tensor))
            seen.append(Call(name, layer, value, value._version))

        return layer.register_forward_pre_hook(note, with_kwargs=True)

    handles = [listen(name, module.get_submodule(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within, and no cache for generation, which a block run twice would fill twice."""
    modes = [(part, part.training) for part in module.modules()]
    configs = {id(c): c for part in module.modules() if (c := getattr(part, "config", None))}
    caches = [(each, each.use_cache) for each in configs.values() if hasattr(each, "use_cache")]
    module.eval()
    for config, _ in caches:
        config.use_cache = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
        for config, cached in caches:
            config.use_cache = cached
