"""The workbench of the laws: an adapter, the chain that must come before it, a tiny base and tiny rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter, ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.merge import Merge
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.data import Data
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import Execution, execute
from reuselib.derivation.plan import Plan, check_order, plan
from reuselib.errors import IncompatibleStep
from reuselib.recipe import Recipe
from reuselib.task import Task
from reuselib.tasks.text_classification import TextClassification
from reuselib.training.lessons import Losses
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from reuselib.model import Model

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-3)
"""Long enough to move every weight that learns."""

SETTINGS: dict[str, Adapter] = {
    "finetune": FineTune(train=("head", "block[-1:]"), fit=SHORT),
    "lora": LoRA(r=2, fit=SHORT),
    "merge": Merge(),
    "prune": Prune(heads=0.5, ffn=0.5),
    "quantize": Quantize(),
    "sparsify": Sparsify(sparsity=0.5),
    # a model that is its own teacher only learns by what the rows say
    "distill": Distill(losses=Losses(logits=0.5, task=0.5), fit=SHORT),
}
"""One short setting of each of our adapters, to stand before or after the one that is tested."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where one adapter is tried."""

    adapter: Adapter
    before: tuple[Adapter, ...]
    """Steps without which the adapter cannot be applied."""
    base: Path
    """A tiny model."""
    task: Task
    data: Data
    folder: Path
    """Empty, for everything that the laws write."""

    @property
    def steps(self) -> tuple[Adapter, ...]:
        """The shortest chain that ends with the adapter."""
        return (*self.before, self.adapter)

    @property
    def recipe(self) -> Recipe:
        """That chain as a recipe."""
        return Recipe(
            base=ModelRef(str(self.base)), task=self.task, data=self.data, steps=self.steps
        )

    def plan(self, *, store: str = "store", steps: Sequence[Adapter] = ()) -> Plan:
        """The chain, or other steps, pinned; `store` names a store of its own."""
        return plan(
            ModelRef(str(self.base)),
            steps or self.steps,
            task=self.task,
            data=self.data,
            store=self.folder / store,
        )

    def execute(self, *, store: str = "store", steps: Sequence[Adapter] = ()) -> Execution:
        """Carry that out."""
        return execute(self.plan(store=store, steps=steps), Runtime())

    @cached_property
    def execution(self) -> Execution:
        """The chain, carried out once."""
        return self.execute()

    @cached_property
    def child(self) -> Model:
        """What the adapter makes, in memory as the adapter left it."""
        return self.execution.model()


def needed_before(adapter: Adapter) -> tuple[Adapter, ...]:
    """The shortest chain of our adapters after which this one can be applied.

    Raises:
        IncompatibleStep: there is none; the adapter's own reason.
    """
    chains: list[tuple[Adapter, ...]] = [(), *((each,) for each in SETTINGS.values())]
    refusal: IncompatibleStep | None = None
    for chain in chains:
        try:
            check_order((*chain, adapter), "dense")
        except IncompatibleStep as error:
            refusal = refusal or error
            continue
        return chain
    raise refusal or IncompatibleStep("no chain was tried")


def default_task() -> Task:
    """What the tiny rows are for."""
    return TextClassification()
