"""Any network of torch, from Python: bring a loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from reuselib.adapter import Json
from reuselib.errors import DataError, SourceError
from reuselib.task import Batch, Beliefs, Examples, Loaded, Processor, Rows, Task
from reuselib.tasks import callables, columns

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.data import Splits

_WEIGHTS = "model.safetensors"
_MAX_ROWS = 5000
"""Above this many rows the criterion is not called for each of them."""


@dataclass(frozen=True, kw_only=True)
class ModuleTask(Task):
    """Train a network of your own. Holds functions, so it exists in Python only, not in YAML."""

    kind: ClassVar[str] = "module"

    network: Callable[[], nn.Module]
    """Builds the network, such as its class; weights are then read from the model's folder."""
    criterion: Callable[[Tensor, Tensor], Tensor]
    """Maps outputs and targets of a batch to the loss, averaged over the rows."""
    arguments: tuple[str, ...] = ("x",)
    """Columns that the network takes, in the order of its arguments."""
    target: str = "y"
    """Column with the target: a number or an array."""
    outputs: tuple[str, ...] = ()
    """Names of the submodules that are the head."""
    score: Callable[[Tensor, Tensor], Tensor | float] | None = None
    """Maps outputs and targets of all rows to the metric, where more is better; null: the loss decides."""

    def describe(self) -> dict[str, Json]:
        """Column names as they are; functions by qualified name and digest of their code."""
        described: dict[str, Json] = {
            "arguments": list(self.arguments),
            "target": self.target,
            "outputs": list(self.outputs),
        }
        for name in ("network", "criterion", "score"):
            value = getattr(self, name)
            described[name] = value and {
                "name": callables.qualified_name(value),
                "code": callables.code_digest(value),
            }
        return {self.kind: described}

    @property
    def metric(self) -> str:  # type: ignore[override]
        """`score` if there is one, otherwise `loss`."""
        return "loss" if self.score is None else "score"

    @property
    def greater_is_better(self) -> bool:  # type: ignore[override]
        """Of a score more is better, of a loss less."""
        return self.score is not None

    # Rows.

    def pin(self, splits: Splits) -> ModuleTask:
        """Check the columns."""
        columns.require_columns(splits, (*self.arguments, self.target))
        return self

    # The network.

    def load(self, folder: Path, *, trust_remote_code: bool = False) -> Loaded:
        """Build the network and read its weights: all of them, and no other."""
        from reuselib.lineage.tensors import Tensors

        if not (folder / _WEIGHTS).is_file():
            raise SourceError(
                f"'{folder.name}' holds no {_WEIGHTS}",
                expected="a folder that this task has saved",
                fix="give the network itself as the base, or the folder of a child",
            )
        module = self.network()
        _fill(module, Tensors(folder), folder)
        return Loaded(module.float().eval(), None)

    def skeleton(self, folder: Path) -> nn.Module:
        """The network, without the folder's weights."""
        import torch

        # The weights are replaced, so drawing them must not move the generator that others draw from.
        with torch.random.fork_rng(devices=[]):
            return self.network().eval()

    def save(self, module: nn.Module, processor: Processor, folder: Path) -> None:
        """Write the weights, and in config.json what they belong to."""
        from reuselib.lineage.tensors import save_tensors

        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(_unique(module), folder / _WEIGHTS, {"format": "pt"})
        config = {"reuselib": self.describe()}
        text = json.dumps(config, indent=2, sort_keys=True)
        (folder / "config.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")

    def head(self, module: nn.Module) -> tuple[str, ...]:
        """What `outputs` names."""
        return self.outputs

    # Batches.

    def encode(self, rows: Rows, processor: Processor) -> Examples:
        """The columns as arrays, the target's where rows have it: fractions in fp32, whole numbers as int64."""
        names = (*self.arguments, *([self.target] if columns.has_column(rows, self.target) else []))
        values = zip(*(columns.column(rows, name) for name in names), strict=True)
        return [
            {name: _array(value, name, number) for name, value in zip(names, row, strict=True)}
            for number, row in enumerate(values)
        ]

    def collate(self, examples: Sequence[Mapping[str, Any]], processor: Processor) -> Batch:
        """Stack each column.

        Raises:
            DataError: rows differ in shape.
        """
        import numpy as np
        import torch

        batch: Batch = {}
        for name in examples[0]:
            arrays = [example[name] for example in examples]
            shapes = {array.shape for array in arrays}
            if len(shapes) > 1:
                raise DataError(
                    f"rows differ in the shape of '{name}': {', '.join(map(str, sorted(shapes)))}",
                    expected="one shape in all rows",
                    fix="pad or cut the arrays before",
                )
            batch[name] = torch.from_numpy(np.stack(arrays))
        return batch

    def inputs(self, batch: Batch) -> Batch:
        """The columns that the network takes."""
        return {name: batch[name] for name in self.arguments}

    def num_targets(self, batch: Batch) -> int:
        """Rows."""
        return len(batch[self.target])

    # Learning.

    @property
    def meaning(self) -> Literal["categories", "numbers"]:
        """Categories if the criterion is torch's cross-entropy; of another nothing is known."""
        from torch import nn

        entropic = self.criterion is nn.functional.cross_entropy
        return (
            "categories"
            if entropic or isinstance(self.criterion, nn.CrossEntropyLoss)
            else "numbers"
        )

    def forward(self, module: nn.Module, batch: Batch) -> Tensor:
        """The network's outputs; columns are handed over in order, so their names need not match."""
        return module(*self.inputs(batch).values())

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The criterion times the rows it averages over, in fp32."""
        return self.criterion(logits.float(), batch[self.target]) * self.num_targets(batch)

    def observe(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Outputs and targets."""
        return {"outputs": logits.detach().float(), "targets": batch[self.target]}

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """The loss over all rows, and the score if there is one."""
        values = (observed["outputs"], observed["targets"])
        found = {"loss": float(self.criterion(*values))}
        if self.score is not None:
            found["score"] = float(self.score(*values))
        return found

    # Measuring.

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The loss, and the score if there is one."""
        return ("loss",) if self.score is None else ("score", "loss")

    def beliefs(self, observed: Mapping[str, Tensor]) -> Beliefs | None:
        """Outputs [rows, classes] beside whole numbers [rows] are taken for logits of classes."""
        outputs, targets = observed["outputs"], observed["targets"]
        classes = outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()
        if not classes or not 0 <= int(targets.min()) <= int(targets.max()) < outputs.shape[1]:
            return None
        names = tuple(str(index) for index in range(outputs.shape[1]))
        return Beliefs(
            outputs.double().log_softmax(dim=-1)[:, None, :], targets.long()[:, None], names
        )

    def row_losses(self, observed: Mapping[str, Tensor]) -> Tensor | None:
        """The criterion of each row alone; None if there are many rows."""
        import torch

        outputs, targets = observed["outputs"], observed["targets"]
        if len(outputs) > _MAX_ROWS:
            return None
        pairs = zip(outputs.split(1), targets.split(1), strict=True)
        return torch.tensor([float(self.criterion(*pair)) for pair in pairs], dtype=torch.float64)


def _array(value: Any, name: str, number: int) -> Any:
    import numpy as np

    array = np.asarray(value)
    kind = array.dtype.kind
    if kind not in "biuf":
        raise DataError(
            f"row {number} has {value!r:.60} in the column '{name}'",
            expected="a number or an array of numbers",
            fix="turn texts and labels into numbers before",
        )
    return array.astype({"f": np.float32, "b": np.bool_}.get(kind, np.int64))


def _unique(module: nn.Module) -> dict[str, Tensor]:
    """The state by name; a tensor with several names is kept once, by the first."""
    seen: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            kept[name] = value.detach()
    return kept


def _fill(module: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    import torch

    state = _unique(module)
    missing = sorted(set(state) - set(weights))
    unexpected = sorted(set(weights) - set(state))
    shapes = sorted(
        name for name in set(state) & set(weights) if state[name].shape != weights[name].shape
    )
    if missing or unexpected or shapes:
        found = {"missing": missing, "left over": unexpected, "of another shape": shapes}
        text = "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names)
        raise SourceError(
            f"the weights in '{folder.name}' are not those of this network ({text})",
            expected="the network that was saved",
            fix="give the `network` that built it",
        )
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(weights[name])
