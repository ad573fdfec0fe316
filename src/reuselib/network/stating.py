"""Whether a configuration of transformers says how a network is built, and making it say so."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reuselib.network.cutting import Cut, cut
from reuselib.network.families import Family, family
from reuselib.network.fitting import fit_attributes

if TYPE_CHECKING:
    from torch import nn


def resize(module: nn.Module, plan: Cut) -> bool:
    """Cut a network, in place, and correct its configuration if that can say what came out.

    Returns:
        Whether it can. If not, the configuration still describes the network before the cut, and the child has to be
        rebuilt from it. A network that its configuration did not describe before is not described afterwards.
    """
    described = is_described(module, module.config)
    cut(module, plan)
    found = family(module)
    config = corrected(module.config, found, plan)
    if not described or not is_described(module, config):
        return False
    _take_over(module, config, found)
    fit_attributes(module)
    return True


def is_described(module: nn.Module, config: Any) -> bool:
    """Whether a network built from `config` has exactly the tensors, and the sizes and scales, of `module`."""
    import torch

    try:
        # through JSON, because that is how it comes back from a folder
        read: Any = config.from_dict(json.loads(config.to_json_string()))
        with _quietly(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            twin = type(module)(read)
    except Exception:  # noqa: BLE001 - whatever keeps transformers from building it, it says nothing then
        return False
    return _shapes(twin) == _shapes(module) and _numbers(twin).items() >= _numbers(module).items()


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from giving advice about a network that is only built to be looked at."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _numbers(module: nn.Module) -> dict[tuple[str, str], int | float]:
    """The plain numbers that submodules keep as attributes, such as a scale: they decide outputs just as weights do."""
    found: dict[tuple[str, str], int | float] = {}
    for name, submodule in module.named_modules():
        for key, value in _attributes(submodule).items():
            if type(value) in (int, float) and not key.startswith("_") and key != "padding_idx":
                found[name, key] = value
    return found


def _attributes(value: object) -> dict[str, Any]:
    return vars(value)


def corrected(config: Any, found: Family, plan: Cut) -> Any:
    """A copy of the configuration with the sizes that a network has after a cut; the first block speaks for all."""
    keys, attention = found.table.config, found.blocks[0].attention
    changed = copy.deepcopy(config)
    first, *others = keys.hidden
    like_first = [key for key in others if getattr(config, key, None) == getattr(config, first)]
    sizes: dict[str, int] = {
        **dict.fromkeys((first, *like_first), found.hidden_size),
        keys.heads: attention.num_heads,
        keys.groups: attention.num_groups,
        keys.head_dim: attention.head_dim,
        keys.units: found.blocks[0].feed_forward.num_units,
    }
    for key, stack in zip(keys.blocks, found.stacks, strict=False):
        sizes[key] = len(found.of_stack(stack))
    for key, size in sizes.items():
        if key and getattr(changed, key, None) != size:
            setattr(changed, key, size)
    for axis in plan.blocks.values():
        for key in keys.per_block:
            values: list[object] | None = getattr(changed, key, None)
            if values and len(values) == axis.size:
                setattr(changed, key, [values[index] for index in axis.keep])
    return changed


def _take_over(module: nn.Module, config: Any, found: Family) -> None:
    """Write what was corrected into the configuration that the submodules share, and into that of a stack."""
    shared: Any = module.config
    changed = {k: v for k, v in _attributes(config).items() if getattr(shared, k, None) != v}
    own = {id(each): each for each in (getattr(m, "config", None) for m in module.modules())}
    for each in own.values():
        if type(each) is type(shared):
            for key, value in changed.items():
                setattr(each, key, value)
    for stack in found.stacks:
        holder: Any = module.get_submodule(stack.rpartition(".")[0])
        if getattr(holder, "config", shared) is not shared:
            # the decoder of T5 is configured like an encoder of as many blocks
            setattr(holder.config, found.table.config.blocks[0], len(found.of_stack(stack)))
