"""What a model folder says about how it was made, read when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import IntegrityError
from reuselib.evidence.reproduction import Reproduction
from reuselib.lineage import canonical
from reuselib.lineage.chain import Chain, read_ancestors, walk
from reuselib.lineage.inventory import Inventory, take_inventory
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.record import ENVIRONMENT
from reuselib.lineage.trail import TRAIL, Trail, ends_in, parse_trails
from reuselib.model.figures import Figures, read_figures

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.definition import Internal
    from reuselib.lineage.tiers import Tier

_MAX_THREADS = 1024


@dataclass(frozen=True)
class Recorded:
    """A derived model whose folder was verified, so that its files are those that the manifest names."""

    folder: Path
    manifest: Manifest
    internal: Internal

    @classmethod
    def read(cls, folder: Path) -> Recorded:
        """From a model folder.

        Raises:
            IntegrityError: `MISSING_LINEAGE`, no step made it; or the manifest is malformed.
        """
        manifest = Manifest.read(folder) if (folder / MANIFEST).is_file() else None
        if manifest is None or manifest.definition.internal is None:
            raise IntegrityError(
                "MISSING_LINEAGE",
                f"{folder} has no record of a step that made it, so there is nothing to make again",
                fix="name the folder of a derived model",
            )
        return cls(folder, manifest, manifest.definition.internal)

    @cached_property
    def history(self) -> Mapping[str, bytes]:
        """The manifests of all ancestors, in bytes."""
        return read_ancestors(self.folder)

    @cached_property
    def chain(self) -> Chain:
        """The same, read."""
        return walk(self.manifest, self.history)

    @cached_property
    def inventory(self) -> Inventory:
        """What the folder holds."""
        return take_inventory(self.folder)

    @cached_property
    def trails(self) -> tuple[Trail, ...]:
        """Of the trainings of the step; none if nothing was trained, or no trail was recorded."""
        path = self.folder / TRAIL
        return parse_trails(path.read_bytes()) if path.is_file() else ()

    @cached_property
    def figures(self) -> Figures:
        """What was measured."""
        return read_figures(self.folder)

    @cached_property
    def environment(self) -> Mapping[str, Json]:
        """Where it was made; empty if that is not recorded."""
        path = self.folder / ENVIRONMENT
        value = canonical.loads(path.read_bytes(), path=ENVIRONMENT) if path.is_file() else {}
        return value if isinstance(value, dict) else {}

    @property
    def num_threads(self) -> int | None:
        """With how many threads it was computed, as far as that is recorded."""
        torch: Any = self.environment.get("torch")
        known = self.internal.facts.get("num_threads") or (
            torch.get("threads") if isinstance(torch, dict) else None
        )
        # a stranger's record must not make this machine start a million of them
        return known if type(known) is int and 0 < known <= _MAX_THREADS else None

    @property
    def cache_bytes(self) -> int:
        """How much room there was for outputs of frozen blocks; none where no training could have used it."""
        known = self.internal.facts.get("cache_bytes")
        return known if type(known) is int and known > 0 else 0

    @property
    def ends_in_trail(self) -> bool | None:
        """Whether the weights are those that the trail ends in; None where a step does more than train.

        Only a fine-tuning without early stopping stores the weights of its last step as they are.
        """
        fit: Any = self.manifest.definition.recipe.get("fit")
        plain = isinstance(fit, dict) and fit.get("early_stopping") is None
        if self.manifest.definition.adapter != "finetune" or not plain or len(self.trails) != 1:
            return None
        return ends_in(self.trails[0], self.inventory.rows)

    @property
    def before(self) -> tuple[tuple[str, str, Tier], ...]:
        """The steps that led to the parents, by what their record alone is worth."""
        found: list[tuple[str, str, Tier]] = []
        for each in self.chain.manifests.values():
            if each.parents:
                known = all(p.manifest_sha256 in self.chain.manifests for p in each.parents)
                found.append((each.name, each.relation, "recorded" if known else "missing"))
        return tuple(found) + tuple(
            (parent.name, "unknown", "missing") for parent in self.chain.missing
        )

    def unknown(self) -> Reproduction:
        """A result that says nothing yet."""
        return Reproduction(
            name=self.manifest.name,
            dir_hash=self.manifest.digests.dir_hash,
            relation=self.manifest.relation,
            adapter=str(self.manifest.definition.adapter),
            verdict="cannot check",
        )
