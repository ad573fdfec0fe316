"""Whether a record sets no more weights free than its recipe does, and takes over all that it could of the parent.

What is trained or new is compared with nothing, so a forger would like to call everything that.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, Finding, Json, Weights
from reuselib.errors import ReuseError, SourceError
from reuselib.evidence.edge import settled
from reuselib.lineage import canonical
from reuselib.lineage.structure import Structure
from reuselib.model.weights import own_weights, parent_weights

if TYPE_CHECKING:
    from torch import nn

    from reuselib.evidence.whereabouts import Whereabouts
    from reuselib.lineage.manifest import Manifest

_MAX_PARTS = 1024
_MAX_LABELS = 100_000
_COUNTED = re.compile(r"layer|block|expert|depth|stage")
_BY_NETWORK = re.compile(r"(head|backbone|stem|tail|op:.*|block\[.*)")
"""Terms of selectors that names of tensors alone do not explain."""


def selected(
    manifest: Manifest, adapter: Adapter, folder: Path, child: Weights
) -> Iterator[Finding]:
    """What is recorded as selected is what the recipe's selectors match in the child's network.

    The network is built from the configuration in the folder, without weights and without code of the folder, and
    only if names alone do not do; it must have the child's tensors.

    Raises:
        SourceError: it cannot be built, so what a selector means is not known.
    """
    for key, selectors in adapter.selected.items():
        if "all" in selectors:
            continue  # nothing is freer than that, and what is left out is compared
        recorded = set(_structure(manifest).names(key))
        found = _by_names(selectors, child) or _by_network(manifest, selectors, folder, child)
        odd = sorted((recorded - found.most) | (found.least - recorded))
        shown = ", ".join(selectors)
        told = f"{len(recorded)} tensors: {shown}"
        if odd:
            told = f"{shown} does {'not select it' if odd[0] in recorded else 'select it, too'}"
            told += f"; {len(odd) - 1} more like it" if odd[1:] else ""
        claim = f"what is recorded as {key} is what the recipe selects"
        yield Finding(claim, not odd, told, next(iter(odd), ""))


@dataclass(frozen=True)
class _Matched:
    """What selectors match, as far as that is known."""

    least: frozenset[str]
    most: frozenset[str]


def _structure(manifest: Manifest) -> Structure:
    structure = settled(manifest).structure
    # whatever else it is, the adapter's own proof says so
    return Structure(structure if isinstance(structure, dict) else {})


def _by_names(selectors: Sequence[str], child: Weights) -> _Matched | None:
    """What globs match among the names of tensors, of which not all are learned; None if names do not tell."""
    terms = [term.strip() for each in selectors for term in each.split("&")]
    if any(_BY_NETWORK.fullmatch(term) for term in terms):
        return None
    return _Matched(frozenset(), frozenset(n for each in selectors for n in _globbed(each, child)))


def _by_network(
    manifest: Manifest, selectors: Sequence[str], folder: Path, child: Weights
) -> _Matched:
    """What selectors match in the child's network, built without its weights."""
    from reuselib.network.selectors import select
    from reuselib.values.named import parse_task

    try:
        task = parse_task(dict(manifest.definition.task or {}))
        module = _network(manifest, folder, child)
        wanted = select(module, selectors, head=task.head(module))
    except Exception as error:
        told = error.what if isinstance(error, ReuseError) else f"{type(error).__name__}: {error}"
        raise SourceError(
            f"which weights '{', '.join(selectors)}' means is not known, as its network cannot be built: {told[:300]}"
        ) from error
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    aliases = {name for name, each in every if first[id(each)] != name}
    return _Matched(wanted, wanted | aliases)


def _globbed(selector: str, child: Weights) -> set[str]:
    """As `network.selectors`: a glob on a tensor or a module, which may begin at any dot."""
    chosen = set(child)
    for term in (term.strip() for term in selector.split("&")):
        if term == "all":
            continue
        pattern = re.compile(f"(?:.*\\.)?{fnmatch.translate(term)}")
        chosen = {name for name in chosen if any(map(pattern.match, _places(name)))}
    return chosen


def _places(name: str) -> Iterator[str]:
    """A tensor's name and those of the modules that it is in."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _network(manifest: Manifest, folder: Path, child: Weights) -> nn.Module:
    """The child's network without its weights."""
    import torch

    from reuselib.tasks.pretrained import quiet
    from reuselib.values.named import parse_adapter, parse_task

    _refuse_endless(canonical.loads((folder / "config.json").read_bytes()), len(child))
    task = parse_task(dict(manifest.definition.task or {}))
    with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        module = task.skeleton(folder)
        for entry in settled(manifest).rebuild:
            module = parse_adapter(entry["adapter"]).rebuild(module, entry["structure"])
    state: Mapping[str, torch.Tensor] = module.state_dict()
    known = {name: tuple(value.shape) for name, value in state.items()}
    if odd := next((n for n in child if known.get(n) != tuple(child[n].shape)), ""):
        raise SourceError(f"config.json describes a network without this {odd}")
    return module


def _refuse_endless(value: Json, num_tensors: int, key: str = "") -> None:
    """Refuse a configuration that describes a network far larger than the child, which would take for ever to build."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_endless(item, num_tensors, name)
    elif isinstance(value, list):
        for item in value:
            _refuse_endless(item, num_tensors, key)
    elif isinstance(value, int) and (
        (_COUNTED.search(key) and value > max(num_tensors, _MAX_PARTS))
        or (key == "num_labels" and value > _MAX_LABELS)
    ):
        raise SourceError(f"config.json says {key} = {value}, for {num_tensors} tensors")


def taken_over(manifest: Manifest, sources: Whereabouts, child: Weights) -> Finding:
    """What the child has of the parent is compared with it, rather than recorded as dropped and new.

    Raises:
        SourceError: the parent is not at hand.
    """
    internal, parent = settled(manifest), manifest.parents[0]
    claim = "what the parent has is taken over under its own name"
    before = own_weights(sources.folder(parent), sources.manifest(parent), sources)
    view = parent_weights(manifest, sources)
    if not view:
        detail = "every tensor of the parent is recorded as dropped, so the child has nothing of it"
        return Finding(claim, False, detail)
    dropped = {*internal.dropped}
    after = {name: internal.renamed.get(name, f"{internal.prefix}{name}") for name in before}
    gone = {name for name, new in after.items() if new in dropped}
    for name in sorted(n for n in child if n not in view):
        for place in _ends(name):
            # a head that gives way to one of its own name is looked at by `replaced`
            if place in gone and after[place] != name and _alike(before, place, child, name):
                detail = f"the parent has it as {place}, which is recorded as dropped"
                return Finding(claim, False, detail, name)
    return Finding(claim, True, f"{len(view)} of {len(before)} tensors")


def _ends(name: str) -> Iterator[str]:
    """A name, and what is left of it without the modules around."""
    while name:
        yield name
        name = name.partition(".")[2]


def _alike(before: Weights, place: str, child: Weights, name: str) -> bool:
    return before[place].shape == child[name].shape
