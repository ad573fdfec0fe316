"""A recipe: base, task, data, steps, gates and seed, as Python values. Its fields are the parameters of `derive`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.adapter import Adapter, Json, ModelRef
from reuselib.data import Data
from reuselib.errors import Problem, RecipeError
from reuselib.measure.gates import Gate
from reuselib.measure.gates import faults as gate_faults
from reuselib.task import Task

if TYPE_CHECKING:
    from reuselib.derivation.derive import Runtime
    from reuselib.derivation.plan import Plan
    from reuselib.lineage.manifest import Manifest
    from reuselib.lineage.store import Store
    from reuselib.model import Model


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to make: everything that decides the child's weights, and what the child must reach."""

    base: ModelRef
    """The model to start from."""
    task: Task
    """What the model is for: one key, the kind of the task."""
    data: Data | None = None
    """The rows to learn from and to measure on."""
    steps: tuple[Adapter, ...]
    """Adapters in the order in which they are applied; each makes one child."""
    gates: tuple[Gate, ...] = ()
    """What the last child must reach, such as `accuracy: {max_drop: 0.02}`; it is not handed over if it does not."""
    seed: int = 0
    """Where all chance comes from."""

    def __post_init__(self) -> None:
        problems = [Problem("", key, message) for key, message in self._faults()]
        if problems:
            raise RecipeError(problems)

    def _faults(self) -> list[tuple[str, str]]:
        faults: list[tuple[str, str]] = []
        for key, kind in (("base", ModelRef), ("task", Task), ("data", Data | None)):
            if not isinstance(value := getattr(self, key), kind):
                wanted = getattr(kind, "__name__", "Data or None")
                faults.append((key, f"expected {wanted}; got {type(value).__name__}"))
        if not isinstance(self.steps, tuple) or not all(isinstance(s, Adapter) for s in self.steps):
            faults.append(("steps", f"expected a tuple of adapters; got {self.steps!r}"))
        elif not self.steps:
            faults.append(
                ("steps", "is empty; a recipe has at least one step, such as `- finetune`")
            )
        faults += self._faults_of_gates()
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            faults.append(("seed", f"expected an integer from 0 to 4294967295; got {self.seed!r}"))
        return faults

    def _faults_of_gates(self) -> list[tuple[str, str]]:
        if not isinstance(self.gates, tuple) or not all(isinstance(g, Gate) for g in self.gates):
            return [("gates", f"expected a tuple of gates; got {self.gates!r}")]
        if not isinstance(self.task, Task):
            return []
        return [
            (f"gates[{index}].{figure}", message)
            for index, figure, message in gate_faults(
                self.gates, self.task, has_rows=self.data is not None
            )
        ]

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        overrides: Sequence[str] = (),
        adapters: Sequence[type[Adapter]] = (),
    ) -> Recipe:
        """Read a YAML file.

        Args:
            path: the file.
            overrides: changes such as `steps[0].lora.fit.epochs=1`, applied in order.
            adapters: adapter classes to know besides those of the catalog.

        Raises:
            RecipeError: with every problem found, each at its file, line and key.
        """
        from reuselib.recipe.reading import read

        return read(path, overrides=overrides, adapters=adapters)

    @classmethod
    def parse(cls, text: str, *, adapters: Sequence[type[Adapter]] = ()) -> Recipe:
        """Read YAML text; otherwise as `read`."""
        from reuselib.recipe.reading import build
        from reuselib.values.document import parse

        return build(parse(text), adapters=adapters)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Json], *, adapters: Sequence[type[Adapter]] = ()
    ) -> Recipe:
        """The recipe that `to_dict` wrote; checked as strictly as a file."""
        from reuselib.recipe.reading import build
        from reuselib.values.document import Document

        return build(Document(dict(values), {}, ""), adapters=adapters)

    @classmethod
    def of(cls, manifest: Manifest, ancestors: Mapping[str, Manifest] | None = None) -> Recipe:
        """The recipe that made a model, from its record: pinned, with every default written out.

        Args:
            manifest: the record.
            ancestors: manifests by SHA-256, as `lineage.chain.walk` finds them. With them the recipe has all steps
                since the base; without them, the last one.

        Raises:
            SourceError: the model is a base, or was made with what only Python can say.
            RecipeError: the record names an adapter or a field that is unknown here.
        """
        from reuselib.recipe.recorded import recipe_of

        return recipe_of(manifest, ancestors or {})

    def to_dict(self) -> dict[str, Json]:
        """Plain JSON values with every default written out."""
        from reuselib.recipe.writing import to_dict

        return to_dict(self)

    def to_yaml(self) -> str:
        """The recipe as YAML with every default written out; `parse` gives an equal recipe."""
        from reuselib.recipe.writing import to_yaml

        return to_yaml(self)

    def write(self, path: str | Path) -> None:
        """Write `to_yaml` to a file."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")

    def plan(self, *, store: Path | Store | None = None, weights: bool = True) -> Plan:
        """Pin every input and look up what the store holds, without loading a network.

        Without `weights` models are found, but not read: the plan is one for `derivation.budget.estimate`.

        Raises:
            ReuseError: an input cannot be had, or a step cannot follow the ones before it.
        """
        from reuselib.derivation.plan import plan

        return plan(**self._parameters(), store=store, weights=weights)

    def run(self, runtime: Runtime | None = None) -> Model:
        """Make the model, or find it in the store: `derive` with this recipe's fields."""
        from reuselib.derivation.derive import Runtime, derive

        return derive(**self._parameters(), runtime=runtime or Runtime())

    def _parameters(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}
