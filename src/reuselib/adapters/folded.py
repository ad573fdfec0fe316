"""A LoRA adapter that was folded into its base: what is recorded of it, and what must hold between the weights.

Not an adapter itself; `merge` proves with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reuselib.adapter import Finding, Json, Weights
from reuselib.lineage.structure import Structure
from reuselib.measure.chunks import pieces
from reuselib.measure.claims import bit_equal, same_bits

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."
"""What peft puts in front of the names in an adapter's file."""


@dataclass(frozen=True)
class Fold:
    """What is recorded of an adapter that was folded in."""

    targets: tuple[str, ...]
    transposed: frozenset[str]
    """Targets whose weight is [in, out], as GPT-2's Conv1D keeps it."""
    replaced: tuple[str, ...]
    """Modules that came whole with the adapter."""
    scale: float
    dora: bool

    @classmethod
    def of_json(cls, value: Json) -> Fold:
        """Read what a merge recorded.

        Raises:
            IntegrityError: `BAD_STRUCTURE`, it is no such record.
        """
        record = Structure.read(value, ("targets", "transposed", "replaced", "scale", "dora"))
        return cls(
            targets=record.names("targets"),
            transposed=frozenset(record.names("transposed")),
            replaced=record.names("replaced"),
            scale=record.number("scale"),
            dora=record.flag("dora"),
        )


def untouched(base: Weights, child: Weights, record: Fold) -> Iterator[Finding]:
    """All but the targets: names, modules that came whole, and the rest. Of an adapter not at hand, less is said."""
    brought = {n for n in base if n.startswith(PREFIX)}
    taken = {n: f"{PREFIX}{n}" for n in child if n.rpartition(".")[0] in record.replaced}
    wanted = {n for n in base if not n.startswith(PREFIX)}
    wanted |= {n.removeprefix(PREFIX) for n in brought if ".lora_" not in n}
    wanted |= set() if brought else set(taken)
    odd = sorted(wanted ^ set(child))
    claim = "names are those of the base and of its new modules"
    yield Finding(claim, not odd, tensor=next(iter(odd), ""))
    if brought:
        wrong = next(
            (n for n, s in taken.items() if s not in base or not same_bits(child[n], base[s])), ""
        )
        claim = "modules trained in full are the adapter's, bit for bit"
        yield Finding(claim, not wrong, tensor=wrong, compared=0 if wrong else len(taken))
    merged = {f"{target}.weight" for target in record.targets}
    rest = [n for n in child if n not in merged and n not in taken]
    yield bit_equal("everything else is bit-equal to the base", base, child, rest)


def ranks(base: Weights, child: Weights, record: Fold, rank: int) -> Iterator[Finding]:
    """No target changed by more than the claimed rank, as far as its precision shows."""
    from reuselib.measure.rank import spectrum

    claim = f"every target differs from the base by a matrix of rank {rank} at most"
    if record.dora:
        yield Finding(claim, None, "DoRA rescales each row of a target, which raises the rank")
        return
    blurred, least = "", float("inf")
    for target in record.targets:
        name = f"{target}.weight"
        if name not in child or name not in base or child[name].shape != base[name].shape:
            yield Finding(claim, False, "missing, or of another shape", name)
            return
        if child[name].dim() < 2 or not child[name].is_floating_point():
            yield Finding(claim, False, "is no matrix", name)
            return
        found = spectrum(child[name].flatten(1), base[name].flatten(1), rank, child[name].dtype)
        if not found.next <= found.noise:
            detail = f"singular value {rank + 1} is {found.next:.2g}, rounding explains {found.noise:.2g}"
            yield Finding(claim, False, detail, name)
            return
        if found.last <= found.noise:
            blurred = blurred or name
        least = min(least, found.last / max(found.noise, 1e-38))
    if blurred:
        detail = "cannot be checked at this precision: the update does not stand out from rounding"
        yield Finding(claim, None, detail, blurred)
    else:
        detail = f"singular value {rank} is {least:.2g} times what rounding explains, or more"
        yield Finding(claim, bool(record.targets), detail)


@dataclass
class Error:
    """The largest difference to what was to be found, relative to the largest value of that."""

    largest: float = 0.0
    scale: float = 0.0

    def add(self, got: Tensor, wanted: Tensor) -> None:
        """Take a piece into account."""
        if not got.numel():
            return
        difference = float((got.float() - wanted).abs().max())
        # max() would pass over a NaN
        self.largest = max(self.largest, difference) if difference == difference else float("nan")
        self.scale = max(self.scale, float(wanted.abs().max()))

    @property
    def relative(self) -> float:
        """NaN if a difference is none."""
        return self.largest / max(self.scale, 1e-30)


def fold_error(name: str, child: Weights, base: Weights, record: Fold) -> float:
    """How far a target is from the recorded adapter folded in, recomputed in fp32 a few outputs at a time."""
    module = name.removesuffix(".weight")
    parts = [f"{PREFIX}{module}.lora_{side}.weight" for side in "AB"]
    parts += [f"{PREFIX}{module}.lora_magnitude_vector"] * record.dora
    got, weight = child[name], base[name]
    if any(part not in base for part in parts) or got.shape != weight.shape:
        return float("inf")
    a, b = base[parts[0]].float(), base[parts[1]].float()
    transposed = module in record.transposed
    if transposed:
        # GPT-2's Conv1D keeps its weight as [in, out]
        got, weight = got.T, weight.T
    if b.dim() < 2 or a.dim() < 2 or (len(b), *a.shape[1:]) != tuple(weight.shape):
        return float("inf")
    if b.shape[1] != a.shape[0] or b[0].numel() != a.shape[0]:
        return float("inf")
    magnitude = base[parts[2]].float().flatten() if record.dora else None
    if magnitude is not None and len(magnitude) != len(b):
        return float("inf")
    error = Error()
    for rows in pieces(weight.shape):
        delta = (b[rows].flatten(1) @ a.flatten(1)).reshape(-1, *a.shape[1:])
        merged = weight[rows].float() + record.scale * delta
        if magnitude is not None:
            norm = merged.flatten(1).norm(dim=1)
            merged = merged * (magnitude[rows] / norm).reshape(-1, *[1] * (merged.dim() - 1))
        error.add(got[rows], merged)
    return error.relative
