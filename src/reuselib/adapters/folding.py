"""A LoRA adapter folded into its base a layer at a time, by peft's own arithmetic.

Not an adapter itself; `merge` streams with it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reuselib.adapters.folded import PREFIX

if TYPE_CHECKING:
    from torch import Tensor

    from reuselib.adapter import Weights

_ADAPTER = ".default"
"""What peft puts into the names of a network's tensors, but not into those of its file."""


@dataclass(frozen=True)
class Brought:
    """The tensors of a base, and those that an adapter brings."""

    weights: Weights
    """Those of the adapter with `PREFIX` in front."""
    names: frozenset[str]
    """Of the network when all is folded in, each tensor by one name."""

    def tensors(self, layers: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """All of them; where `layers` (by name, of peft, on the meta device) are, the sum."""
        targets = {f"{name}.weight": name for name in layers}
        for name in sorted(self.names):
            if name in targets:
                yield name, self._merged(targets[name], layers[targets[name]])
            else:
                # a module that came whole with the adapter goes before the base's
                source = f"{PREFIX}{name}"
                yield name, self.weights[source if source in self.weights else name]

    def _merged(self, name: str, layer: Any) -> Tensor:
        twin = copy.deepcopy(layer).to_empty(device="cpu")
        for key, value in twin.state_dict().items():
            value.copy_(self.weights[self._source(name, key)])
        twin.merge(safe_merge=True)
        weight = twin.get_base_layer().weight.detach()
        # layers of peft refer to themselves, so their memory would stay until the garbage is collected
        twin.to("meta")
        return weight

    def _source(self, name: str, key: str) -> str:
        """Where a tensor of a layer's lies."""
        if key.startswith("base_layer."):
            return f"{name}.{key.removeprefix('base_layer.')}"
        source = f"{PREFIX}{name}.{key.replace(_ADAPTER, '')}"
        # a magnitude is saved without the last part of its name
        return source if source in self.weights else source.removesuffix(".weight")
