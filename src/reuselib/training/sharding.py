"""Training in which each process keeps a share of every weight, its gradient and its moments: FSDP2.

torch's `fully_shard` changes a module in place: while a unit (a block, say) runs, its weights are whole; otherwise each
process holds a slice of them along the first dimension, as a `DTensor`. Here that lasts for one training: what comes
out is the module that went in, whole on every process.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

from reuselib.errors import TrainingError
from reuselib.progress import Progress, Report
from reuselib.training.plan import FitPlan
from reuselib.training.replay import Stopped
from reuselib.training.setups import carried_out
from reuselib.training.shares import rest, spread_buffers, whole
from reuselib.training.zero import refuse_contradictions

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """What an accelerate configuration says about it."""

    kind: ClassVar[str] = "fsdp2"
    """As a manifest has it."""
    reshard_after_forward: bool = True
    """Whether a unit's weights are given up between its forward and its backward pass."""
    offload: bool = False
    """Whether the shares are kept on the CPU, if the training is elsewhere."""
    classes: tuple[str, ...] = ()
    """Classes of modules that become units; none for the network's blocks."""
    min_num_params: int = 0
    """Modules of more parameters become units, if no class is named; 0 for the network's blocks."""
    asked: str = ""
    """What the configuration names instead, such as `deepspeed zero 3`."""

    @property
    def facts(self) -> dict[str, str]:
        """As a manifest has it."""
        return {"sharding": self.kind, **({"sharding_asked": self.asked} if self.asked else {})}


def asked_for(
    accelerator: Accelerator, plan: FitPlan, report: Report | None = None
) -> Sharding | None:
    """What the user's accelerate configuration asks for; None for a whole copy in each process.

    Args:
        accelerator: says device, processes and precision.
        plan: what the configuration must not contradict.
        report: told by the first process if something else is carried out than the configuration names.

    Raises:
        TrainingError: it asks for something that this loop does not do, or contradicts the plan.
    """
    with carried_out() as setup:
        precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
        refuse_contradictions(setup.demands, plan, precision, accelerator.num_processes)
        found = _configured(accelerator, setup.asked)
    if setup.remark and accelerator.num_processes > 1 and accelerator.is_main_process and report:
        report(Progress("training", 0, 0, remark=setup.remark))
    return found


def _configured(accelerator: Accelerator, asked: str) -> Sharding | None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import CPUOffloadPolicy

    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    # On a CPU accelerate goes by the number of processes alone, although torch shards there as well.
    if plugin is None and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        plugin = FullyShardedDataParallelPlugin()
    if plugin is None or accelerator.num_processes == 1:
        return None
    if plugin.activation_checkpointing or plugin.ignored_modules:
        raise TrainingError(
            "the accelerate configuration asks for activation checkpointing or ignored modules,"
            " which this loop does not do",
            fix="leave `fsdp_activation_checkpointing` and `fsdp_ignored_modules` away",
        )
    if accelerator.mixed_precision == "fp16":
        raise TrainingError(
            "precision fp16 is not trained in shares", fix="use `precision: bf16` or `fp32`"
        )
    return Sharding(
        reshard_after_forward=bool(plugin.reshard_after_forward),
        offload=isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        classes=tuple(plugin.transformer_cls_names_to_wrap or ()),
        min_num_params=int(plugin.min_num_params or 0),
        asked=asked,
    )


@contextmanager
def sharded(
    accelerator: Accelerator, module: nn.Module, head: Sequence[str], how: Sharding
) -> Iterator[nn.Module]:
    """`module` cut into shares within, and whole again afterwards, where it was.

    A unit's own weights are freed as soon as its share is cut off, so a process holds the whole network at the
    beginning and at the end, when nothing else is there, and shares in between. If an error ends it, there are no
    weights to go on with.

    Args:
        accelerator: says device, processes and precision.
        module: whole, the same on every process.
        head: names of its head, as `Task.head` gives them.
        how: to do it.
    """
    from torch.distributed import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = accelerator.device
    originals = dict(module.named_parameters())
    homes = {name: original.device for name, original in originals.items()}
    surface = _Surface(module)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (accelerator.num_processes,)),
        "reshard_after_forward": how.reshard_after_forward,
        "ignored_params": {part for part in originals.values() if not _divisible(part)},
        **_offloading(how, device),
    }
    precision, outermost = _policies(accelerator)
    try:
        for unit in (*units(module, head, how), module):
            policy = outermost if unit is module else precision
            own = [part for part in unit.parameters() if _divisible(part)]
            fully_shard(unit, mp_policy=policy, **options)
            for part in own:
                part.data = part.data.new_empty(0)
        for part in options["ignored_params"]:
            part.data = part.data.to(device)
        surface.look()
        with (
            warnings.catch_warnings(),
            _mixed(accelerator, module),
            _scalars_averaged(accelerator, options["ignored_params"]),
        ):
            # nothing here writes into what a network gives back
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
            try:
                yield module
            except Stopped:
                _gather(module, originals, homes)
                raise
        _gather(module, originals, homes)
    finally:
        surface.restore()
        gc.collect()  # shares hang together in circles, and would stay beside the whole weights for a while


def units(module: nn.Module, head: Sequence[str], how: Sharding) -> list[nn.Module]:
    """What is gathered and given up together, inner before outer; what belongs to none goes with the whole module.

    A module that shares a parameter with others, such as a tied embedding, is none: two would gather it.
    """
    from reuselib.network.parts import block_names

    if how.classes:
        names = [n for n, part in module.named_modules() if type(part).__name__ in how.classes]
        if not names:
            raise TrainingError(
                f"the accelerate configuration names {', '.join(how.classes)} as layers to wrap,"
                " and the network has none",
                fix="correct `fsdp_transformer_layer_cls_to_wrap`, or leave it away: blocks are found by themselves",
            )
    elif how.min_num_params:
        names = [
            name
            for name, part in module.named_modules()
            if sum(each.numel() for each in part.parameters()) > how.min_num_params
        ]
    else:
        names = block_names(module, head)
    uses: dict[int, int] = {}
    for _, part in module.named_parameters(remove_duplicate=False):
        uses[id(part)] = uses.get(id(part), 0) + 1
    found = [module.get_submodule(name) for name in sorted(names, key=_depth, reverse=True) if name]
    return [
        unit
        for unit in found
        if any(_divisible(part) for part in unit.parameters())
        and all(uses[id(part)] == 1 for part in unit.parameters())
    ]


class _Surface:
    """What `fully_shard` changes about modules, besides their weights, and how to take it back."""

    def __init__(self, module: nn.Module) -> None:
        self.before = [
            (part, type(part), set(part.__dict__), _tables(part)) for part in module.modules()
        ]
        self.added: list[set[str]] = []

    def look(self) -> None:
        """Note what it added, now that it is done."""
        self.added = [set(part.__dict__) - names for part, _, names, _ in self.before]

    def restore(self) -> None:
        from torch.distributed._composable_state import _module_state_mapping

        if not self.added:
            self.look()
        for (part, kind, _, tables), added in zip(self.before, self.added, strict=True):
            part.__class__ = kind
            for name in added:
                part.__dict__.pop(name, None)
            for table, content in tables:
                table.clear()
                table.update(content)
            _module_state_mapping.pop(part, None)


def _tables(part: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """A module's parameters and hooks: each table, and what is in it."""
    kept = [
        value
        for name, value in part.__dict__.items()
        if isinstance(value, dict) and (name == "_parameters" or "_hooks" in name)
    ]
    return [(table, dict(table)) for table in kept]


def _gather(
    module: nn.Module, originals: dict[str, nn.Parameter], homes: dict[str, torch.device]
) -> None:
    """Put whole weights into the parameters that the module had."""
    rest(module)
    spread_buffers(module)
    for name, original in originals.items():
        original.data = whole(module.get_parameter(name).detach()).to(homes[name])


def _divisible(parameter: nn.Parameter) -> bool:
    """Quantized weights and single numbers stay whole on every process."""
    import torch

    plain = type(parameter.data) is torch.Tensor
    return plain and parameter.ndim > 0 and parameter.is_floating_point()


def _policies(accelerator: Accelerator) -> tuple[Any, Any]:
    """Number formats of inner units and of the whole: gathered in bf16, gradients summed in fp32, fp32 results."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if accelerator.mixed_precision != "bf16":
        return MixedPrecisionPolicy(), MixedPrecisionPolicy()
    formats = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32}
    return (
        MixedPrecisionPolicy(**formats),
        MixedPrecisionPolicy(**formats, output_dtype=torch.float32),
    )


@contextmanager
def _mixed(accelerator: Accelerator, module: nn.Module) -> Iterator[None]:
    """Let each operation choose its number format, as it does when a whole copy is trained."""
    import torch

    if accelerator.mixed_precision != "bf16":
        yield
        return
    before, plain = module.__dict__.get("forward"), module.forward

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(accelerator.device.type, torch.bfloat16):
            return plain(*args, **kwargs)

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before


def _offloading(how: Sharding, device: torch.device) -> dict[str, Any]:
    from torch.distributed.fsdp import CPUOffloadPolicy

    return {"offload_policy": CPUOffloadPolicy()} if how.offload and device.type != "cpu" else {}


@contextmanager
def _scalars_averaged(accelerator: Accelerator, parts: set[nn.Parameter]) -> Iterator[None]:
    """What stays whole and learns has its gradient averaged over the processes, like that of a share."""

    def average(part: nn.Parameter) -> None:
        assert part.grad is not None
        part.grad = accelerator.reduce(part.grad, "mean")

    handles = [
        part.register_post_accumulate_grad_hook(average) for part in parts if part.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _depth(name: str) -> int:
    return name.count(".")
