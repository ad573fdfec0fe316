"""What a step that was done again leaves besides weights: other files, and what its manifest says of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.definition import Internal
    from reuselib.lineage.inventory import Inventory

_OF_THE_RUN = ("derivationId", "dtype", "device", "worldSize", "determinism", "facts")
"""What the run settled that says nothing about the network."""
_OF_THE_WEIGHTS = ("`structure`", "`rebuild`")
"""What may follow from weights: an adapter that chooses by them may choose otherwise if they are others."""
_NAMES_A_VERSION = ("transformers_version", "peft_version")
"""What a configuration says of the software that wrote it, and nothing of the network."""
_MAX_CONFIG = 2**24


@dataclass(frozen=True)
class Leftovers:
    """What is not as recorded, apart from weights."""

    settings: tuple[str, ...]
    """Fields of the manifest."""
    files: tuple[str, ...]
    """Names of files that differ, or are on one side only."""
    contents: tuple[str, ...]
    """Those of them that differ in more than the version of the software that wrote them."""

    @property
    def firm_settings(self) -> tuple[str, ...]:
        """Those of the settings that no weights decide."""
        return tuple(name for name in self.settings if name not in _OF_THE_WEIGHTS)


def find_leftovers(
    recorded: tuple[Path, Inventory, Internal],
    made: tuple[Path, Inventory, Internal],
    *,
    weights: bool,
) -> Leftovers:
    """Compare two model folders in everything but their weights.

    Args:
        recorded: the folder, what it holds, and what its manifest says the run settled.
        made: the same of what was made now.
        weights: whether files that hold weights are compared too, because all weights are the same.
    """
    one, other = recorded[1].files, made[1].files
    files = tuple(
        name
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name) and (weights or not name.endswith(".safetensors"))
    )
    contents = tuple(name for name in files if not _same_content(recorded[0], made[0], name))
    return Leftovers(_odd_settings(recorded[2], made[2]), files, contents)


def explains_files(excuses: Sequence[str]) -> bool:
    """Whether other software is among the differences: no other machine writes other configurations."""
    return any(each.startswith("versions.") for each in excuses)


def _odd_settings(recorded: Internal, made: Internal) -> tuple[str, ...]:
    one, other = recorded.to_json(), made.to_json()
    return tuple(
        f"`{name}`"
        for name in one
        if name not in _OF_THE_RUN and canonical.dumps(one[name]) != canonical.dumps(other[name])
    )


def _same_content(recorded: Path, made: Path, name: str) -> bool:
    if not name.endswith(".json"):
        return False
    one, other = _without_version(recorded / name), _without_version(made / name)
    return one is not None and one == other


def _without_version(path: Path) -> Mapping[str, Json] | None:
    """A configuration without the version of its writer; None for what is none."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_CONFIG:
            return None
        value = canonical.loads(path.read_bytes(), path=path.name)
    except IntegrityError:
        return None
    if not isinstance(value, dict):
        return None
    return {key: each for key, each in value.items() if key not in _NAMES_A_VERSION}
