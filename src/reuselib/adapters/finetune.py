"""Fine-tuning: all weights, or those that a selector names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reuselib.adapter import Adapted, Adapter, Finding, Json, Run, Weights
from reuselib.errors import IncompatibleStep
from reuselib.lineage.structure import Structure
from reuselib.measure.claims import only_learned
from reuselib.training import checks
from reuselib.training.plan import FitPlan, ParameterGroup

if TYPE_CHECKING:
    from torch import nn

    from reuselib.network.parts import Parts


@dataclass(frozen=True, kw_only=True)
class FineTune(Adapter):
    """Train the weights that `train` names on the task's loss; the others stay bit for bit."""

    kind: ClassVar[str] = "finetune"
    relation: ClassVar[str] = "finetune"

    train: tuple[str, ...] = ("all",)
    """Selectors of what learns: `all`, `head`, `backbone`, `block[-2:]`, `op:LayerNorm`, `*.bias`, ..."""
    layerwise_decay: float | None = None
    """Factor on the learning rate from each block to the one below it (Howard and Ruder, 2018, discriminative
    fine-tuning); the head learns at the full rate."""
    unfreeze_every: int | None = None
    """Gradual unfreezing (Howard and Ruder, 2018): start with the head, and let one more block learn every so
    many epochs."""
    fit: FitPlan = FitPlan()
    """How to train."""

    def __post_init__(self) -> None:
        if self.layerwise_decay is not None and not 0 < self.layerwise_decay < 1:
            raise ValueError(
                f"layerwise_decay must lie between 0 and 1, got {self.layerwise_decay}"
            )
        if self.unfreeze_every is not None and self.unfreeze_every < 1:
            raise ValueError(f"unfreeze_every must be at least 1 epoch, got {self.unfreeze_every}")

    @property
    def selected(self) -> Mapping[str, Sequence[str]]:
        """See `Adapter.selected`."""
        return {"trained": self.train}

    def follow(self, form: str) -> str:
        """See `Adapter.follow`; the zeros of a sparse model stay."""
        return form if form == "sparse" else super().follow(form)

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Train in place."""
        from reuselib.network.parts import parts
        from reuselib.network.selectors import select

        head = run.task.head(module)
        trained = select(module, self.train, head=head)
        _refuse_untrained(run.fresh, trained, self.train)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in trained)
        num_epochs = checks.num_epochs(self.fit, len(run.splits.train))
        groups = self._groups(parts(module, head), trained, num_epochs)
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        metrics = run.fit(module, self.fit, groups=groups)
        moved = [name for name, buffer in module.named_buffers() if not buffer.equal(before[name])]
        structure: Json = {"trained": sorted(trained), "statistics": sorted(moved)}
        return Adapted(module, structure=structure, metrics=metrics)

    def _groups(
        self, network: Parts, trained: frozenset[str], num_epochs: int
    ) -> tuple[ParameterGroup, ...]:
        """One group a level, from the top (head and what follows the blocks) down to the stem."""
        if self.layerwise_decay is None and self.unfreeze_every is None:
            return ()
        levels = [network.head | network.tail, *reversed(network.blocks), network.stem]
        levels = [level & trained for level in levels]
        levels = [level for level in levels if level]
        if len(levels) < 2:
            raise IncompatibleStep(
                "layerwise_decay or unfreeze_every was set, but what `train` selects is a single level",
                expected="a network with blocks, of which more than one level is trained",
                fix="leave both options out, or select more in `train`",
            )
        if self.unfreeze_every and (len(levels) - 1) * self.unfreeze_every >= num_epochs:
            reached = 1 + (num_epochs - 1) // self.unfreeze_every
            raise IncompatibleStep(
                f"unfreeze_every={self.unfreeze_every} reaches {reached} of the {len(levels)} levels that `train` "
                f"selects within {num_epochs} epochs; the rest would never learn",
                expected=f"at least {(len(levels) - 1) * self.unfreeze_every + 1} epochs",
                fix="raise fit.epochs, lower unfreeze_every, or name fewer blocks in `train`",
            )
        return tuple(
            ParameterGroup(
                tuple(sorted(level)),
                lr_scale=(self.layerwise_decay or 1.0) ** index,
                from_epoch=index * (self.unfreeze_every or 0),
            )
            for index, level in enumerate(levels)
        )

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Same names and shapes; every tensor that was not trained is bit-equal; something was trained."""
        record = Structure.read(structure, ("trained", "statistics"))
        yield from only_learned(
            parents[0],
            child,
            record.names("trained"),
            record.names("statistics"),
            still="every frozen tensor is bit-equal to the parent's",
            changed="at least one trained tensor differs from the parent's",
        )


def _refuse_untrained(
    fresh: frozenset[str], trained: frozenset[str], selectors: Sequence[str]
) -> None:
    idle = sorted(fresh - trained)
    if idle:
        raise IncompatibleStep(
            f"{idle[0]} is newly initialised (the base does not hold it), but train={list(selectors)} leaves it out, "
            f"so its random values would stay"
            + (f"; {len(idle) - 1} more like it" if idle[1:] else ""),
            expected="new parameters to be trained",
            fix="add `head` to `train`",
        )
