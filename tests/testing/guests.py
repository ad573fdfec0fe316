"""Adapters of strangers: one that keeps the laws, and one for each law that can be broken from outside."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from reuselib import Adapted, Adapter, Finding, FitPlan
from reuselib.adapter import Json, Weights
from reuselib.errors import IncompatibleStep
from reuselib.measure.claims import bit_equal, same_shapes

if TYPE_CHECKING:
    from torch import nn

    from reuselib.adapter import Run

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-2)


@dataclass(frozen=True, kw_only=True)
class BitFit(Adapter):
    """Train the bias terms and nothing else (Ben Zaken et al., 2022)."""

    kind: ClassVar[str] = "bitfit"

    fit: FitPlan = SHORT
    """How to train."""

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.endswith(".bias"))
        return Adapted(module, metrics=run.fit(module, self.fit))

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        yield same_shapes(parents[0], child)
        frozen = [name for name in child if not name.endswith(".bias") and name in parents[0]]
        yield bit_equal("all but the biases is the parent's", parents[0], child, frozen)


class _Quiet(Adapter):
    """The honest part of the adapters below."""

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        import torch

        with torch.no_grad():
            next(module.parameters()).add_(self.amount())
        return Adapted(module)

    def amount(self) -> float:
        return 0.5

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        yield same_shapes(parents[0], child)


@dataclass(frozen=True, kw_only=True)
class Chancy(_Quiet):
    """Adds what no seed decides."""

    kind: ClassVar[str] = "chancy"

    def amount(self) -> float:
        import random

        return random.SystemRandom().random()


@dataclass(frozen=True, kw_only=True)
class Forgetful(_Quiet):
    """Puts a layer in and says nothing about it."""

    kind: ClassVar[str] = "forgetful"

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        from torch import nn

        module.classifier = nn.Sequential(module.classifier, nn.Linear(2, 2))
        return Adapted(module)


@dataclass(frozen=True, kw_only=True)
class Wrong(_Quiet):
    """Rebuilds another network than the one it made."""

    kind: ClassVar[str] = "wrong"

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        return Adapted(self._squashed(module, 2.0), structure={"layer": "classifier"})

    def rebuild(self, module: nn.Module, structure: Json) -> nn.Module:
        return self._squashed(module, 3.0)

    def _squashed(self, module: nn.Module, scale: float) -> nn.Module:
        # nothing of this is in a tensor
        module.classifier.register_forward_hook(lambda _module, _inputs, outputs: outputs / scale)
        return module


@dataclass(frozen=True, kw_only=True)
class Blind(_Quiet):
    """Proves everything."""

    kind: ClassVar[str] = "blind"

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        yield Finding("all is well", True)


@dataclass(frozen=True, kw_only=True)
class Slanderous(_Quiet):
    """Says of an honest child that it is forged."""

    kind: ClassVar[str] = "slanderous"

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        names = list(child)
        yield bit_equal("nothing changed", parents[0], child, names)


@dataclass(frozen=True, kw_only=True)
class Mute(_Quiet):
    """Refuses to follow anything but a base, without a word."""

    kind: ClassVar[str] = "mute"

    def follow(self, form: str) -> str:
        if form != "dense":
            raise IncompatibleStep("")
        return "mute"


@dataclass(frozen=True, kw_only=True)
class Pickler(_Quiet):
    """Leaves a pickle beside the weights."""

    kind: ClassVar[str] = "pickler"
    whole: ClassVar[bool] = False

    def rebuild(self, module: nn.Module, structure: Json) -> nn.Module:
        return module

    def save(self, module: nn.Module, folder: Path) -> None:
        from reuselib.lineage.tensors import save_tensors

        save_tensors({"first": next(module.parameters()).detach()}, folder / "first.safetensors")
        (folder / "notes.pkl").write_bytes(pickle.dumps({"written": "today"}))

    def load(self, module: nn.Module, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        with torch.no_grad():
            next(module.parameters()).copy_(load_file(folder / "first.safetensors")["first"])


@dataclass(frozen=True, kw_only=True)
class Lonely(Adapter):
    """Trains on its own share of the rows, and never asks the other processes."""

    kind: ClassVar[str] = "lonely"

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        import torch
        import torch.distributed as dist

        run.fit(module, SHORT)
        alone = not dist.is_initialized()
        with torch.no_grad():
            next(module.parameters()).add_(0.1 if alone else 0.2)
        return Adapted(module)

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        yield same_shapes(parents[0], child)
