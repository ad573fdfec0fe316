"""What a run takes of memory and disk, and whether that is there: figures only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from reuselib.adapter import Json
from reuselib.errors import DoesNotFit


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What one step takes."""

    kind: str
    peak_bytes: int
    """Memory of a process, all included, mapped files too: what the system shows as its peak."""
    phase: str
    """When that is."""
    tensor_bytes: int
    """Of it, tensors: what it takes of a GPU's memory, if there is one."""
    num_parameters: int
    num_trainable: int
    num_steps: int
    """Optimizer steps; 0 if the step does not train."""
    parts: dict[str, int] = field(default_factory=dict[str, int])
    """Of tensors while training: `weights`, `gradients`, `moments`, `activations`; in bytes."""
    sharded_bytes: int | None = None
    """Of tensors while training where each process has a share of every weight (FSDP2)."""
    child_bytes: int
    """On disk."""
    checkpoint_bytes: int = 0
    """On disk for as long as the step lasts, if it lasts long enough for checkpoints."""
    lesson_bytes: int = 0
    """On disk: what teachers say about the rows."""
    cache_bytes: int = 0
    """On disk: what frozen blocks give for all rows."""
    unknown: str = ""
    """What could not be told, in words."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a run takes, and what there is."""

    steps: tuple[Needed, ...]
    """Those that are still to be computed."""
    num_processes: int
    own_bytes: int
    """What a process takes before it has opened a model."""
    needed_bytes: int
    """Memory of all processes on this machine, without what can be let go of."""
    free_bytes: int | None
    """What all of them may take; None where the system does not tell."""
    disk_bytes: int
    """What the store grows by, checkpoints included."""
    output_bytes: int
    """What a copy of the last child takes besides."""
    free_disk_bytes: int

    @property
    def objections(self) -> tuple[str, ...]:
        """What does not fit, in words; nothing if all does."""
        return tuple(self._objections())

    def _objections(self) -> Iterator[str]:
        if self.free_bytes is not None and self.needed_bytes > self.free_bytes:
            yield (
                f"memory does not fit: needs {_told(self.needed_bytes)}, has {_told(self.free_bytes)}; "
                "lower `batch_size` or raise `gradient_accumulation_steps`, train less of the network, or share it"
                " among more machines"
            )
        if self.disk_bytes + self.output_bytes > self.free_disk_bytes:
            yield (
                f"the disk does not fit: needs {_told(self.disk_bytes)} in the store and {_told(self.output_bytes)} for"
                f" a copy, has {_told(self.free_disk_bytes)}; free some space, or choose another place with --store"
            )

    def require(self) -> None:
        """Do nothing if all fits.

        Raises:
            DoesNotFit: something does not.
        """
        if self.objections:
            raise DoesNotFit("\n".join(self.objections))

    def to_json(self) -> dict[str, Json]:
        """As `reuselib check --json` prints it."""
        return {
            **asdict(self),
            "steps": [asdict(each) for each in self.steps],
            "fits": not self.objections,
        }


def _told(num_bytes: int) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
