"""Which tensor of a folder belongs where in a network of transformers, and whether the two fit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import SourceError
from reuselib.lineage.headers import TensorInfo, headers
from reuselib.network.sharing import shared_names
from reuselib.tasks.safety import weight_names

if TYPE_CHECKING:
    from torch import nn

    from reuselib.task import Loaded

_DROPPED = frozenset({"pooler", "position_ids", "inv_freq", "masked_bias"})
"""Parts inside a base model that a network with a head may lack: poolers it does not use, and tensors
that older versions saved although they follow from the configuration."""


@dataclass(frozen=True)
class Found:
    """In what a folder's tensors differ from a network's state."""

    missing: Collection[str]
    """Of the network, those that the folder lacks or has in another shape."""
    mismatched: Collection[str]
    """Of these, the latter."""
    unexpected: Collection[str]
    """Of the folder, those that the network has no place for."""


def place(
    sketch: Loaded, folder: Path, *, heads: Sequence[str], new_head: bool = False
) -> Loaded | None:
    """Where the tensors of a folder belong in the network that was sketched from it, as `read_network` would say.

    Args:
        sketch: on the meta device.
        folder: where the weights are.
        heads: names of the parts outside of the base model.
        new_head: the folder's head is for something else, although it may have the shape.

    Returns:
        The sketch with `fresh`, `prefix` and `renamed`; None if transformers itself is needed to tell, or to say what
        is wrong: where it computes tensors from several others, or finds less or more in the folder than its model.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping

    module: Any = sketch.module
    infos = headers(folder)
    if set(weight_names(folder)) != set(infos):
        return None  # files beside those that transformers reads
    names = [*infos]
    prefix = prefix_of(module, names)
    renamed = renamed_by(get_model_conversion_mapping(module), module, names, prefix)
    homes = {name: renamed.get(name, f"{prefix}{name}") for name in names}
    found = _compared(module, infos, homes)
    shared = shared_names(module)
    taken = [shared[home] for home in homes.values() if home in shared]
    if found is None or len(set(taken)) != len(taken):
        return None
    try:
        check_names(folder, module, found, heads=heads, bare=bool(prefix))
    except SourceError:
        return None
    new = {n for n in shared if n.startswith(tuple(f"{each}." for each in heads) or "\0")}
    return replace(
        sketch,
        fresh=frozenset(found.missing) | (frozenset(new) if new_head else frozenset()),
        prefix=prefix,
        renamed=renamed,
    )


def _compared(
    module: nn.Module, infos: Mapping[str, TensorInfo], homes: Mapping[str, str]
) -> Found | None:
    """None if a tensor is there in another shape."""
    state, shared = module.state_dict(), shared_names(module)
    for name, home in homes.items():
        if home in state and tuple(state[home].shape) != infos[name].shape:
            return None
    filled = {shared[home] for home in homes.values() if home in shared}
    missing = [name for name, first in shared.items() if first not in filled]
    return Found(missing, (), [name for name, home in homes.items() if home not in state])


def prefix_of(module: Any, names: Iterable[str]) -> str:
    """What a network's names have in front of a folder's that holds its base model only."""
    prefix = f"{module.base_model_prefix}."
    if module.base_model is module or any(name.startswith(prefix) for name in names):
        return ""
    return prefix


def renamed_by(
    changes: Iterable[Any], module: nn.Module, names: Iterable[str], prefix: str
) -> dict[str, str]:
    """The module's name of each tensor that transformers renames as it reads it, by its name in the file.

    It does so for families whose networks were written anew since their weights were published, such as ViT.

    Args:
        changes: what transformers does to the weights of this network.
        module: the network.
        names: in the file.
        prefix: see `prefix_of`.
    """
    state = module.state_dict()
    renaming = [
        each
        for each in changes
        if type(each).__name__.endswith("Rename") or type(each).__name__ == "WeightRenaming"
    ]
    found: dict[str, str] = {}
    for name in names:
        new = name
        for each in renaming:
            new = each.rename_source_key(new)[0]
        new = new if new in state else f"{prefix}{new}"
        if new in state and new != f"{prefix}{name}":
            found[name] = new
    return found


def check_names(
    folder: Path, module: Any, found: Found, *, heads: Sequence[str], bare: bool
) -> None:
    """Refuse a folder whose tensors are not those of the base model; those of a head may be new, or another's.

    Args:
        folder: to name in the message.
        module: the network.
        found: see there.
        heads: names of the parts outside of the base model.
        bare: the folder holds a base model only, so that nothing in it belongs to a head.

    Raises:
        SourceError: it says which.
    """
    replaceable = tuple(f"{name}." for name in heads)
    wrong = sorted(
        name
        for name in found.missing
        if not name.startswith(replaceable or "\0")
        and (name in found.mismatched or not _DROPPED.intersection(name.split(".")))
    )
    if wrong:
        raise SourceError(
            f"the weights in '{folder.name}' do not fit its config.json: {len(wrong)} tensors are "
            f"missing or of another shape ({_some(wrong)})",
            expected="every tensor of the base model; only those of the head may be new",
            fix="check that config.json belongs to these weights and that the download is complete",
        )
    prefix = f"{module.base_model_prefix}."
    wrong = sorted(
        name
        for name in found.unexpected
        if (bare or name.startswith(prefix)) and not _DROPPED.intersection(name.split("."))
    )
    if wrong:
        raise SourceError(
            f"'{folder.name}' holds {len(wrong)} tensors that its config.json has no place for "
            f"({_some(wrong)})",
            expected="weights of the base model, with or without another head",
            fix="check that config.json belongs to these weights",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
