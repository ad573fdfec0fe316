"""The other contract: what a model is for. Loading, encoding, loss, metrics, and what counts as the head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

from reuselib.adapter import Json, as_json

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor, nn

    from reuselib.data import Splits

Batch: TypeAlias = "dict[str, Tensor]"
Rows: TypeAlias = Sequence[Mapping[str, Any]]
"""Raw rows, one mapping of column to value each: a `datasets.Dataset` or a list."""
Examples: TypeAlias = Sequence[Mapping[str, Any]]
"""Encoded rows: numpy arrays and numbers by input name. May encode lazily, on access."""
Processor: TypeAlias = Any
"""A tokenizer or image processor of transformers, or None."""


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, as a task reads it from a folder."""

    module: nn.Module
    """In fp32, in evaluation mode."""
    processor: Processor
    fresh: frozenset[str] = frozenset()
    """Tensors (names in `module.state_dict()`) that the folder does not hold and were initialised here."""
    prefix: str = ""
    """What the module's names have in front of the folder's, such as `bert.` when a head was added."""
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    """The module's name by the folder's, where they differ in more than the prefix."""


@dataclass(frozen=True)
class Beliefs:
    """How likely a model holds each answer, row by row: what drift between two models is measured on."""

    log_probabilities: Tensor
    """[rows, decisions, classes], natural logarithms; those of one decision are the shares of 1. A task with one
    answer a row has one decision; where a row may have any number of labels, each is a decision between no and yes."""
    truth: Tensor | None = None
    """The right class of each decision, int64: [rows, decisions]."""
    names: tuple[str, ...] = ()
    """Of the classes or, where there are several decisions, of these."""


class Task(ABC):
    """What a model is for. A frozen dataclass: its fields are column names and options, as written in recipes."""

    kind: ClassVar[str]
    """Stable name in recipes and manifests."""
    metric: str
    """Name of the metric that decides (a property or a class attribute)."""
    greater_is_better: ClassVar[bool] = True
    answers_positions: ClassVar[bool] = False
    """Whether each position of a row has an answer of its own, so that there are too many to observe them all."""

    def describe(self) -> dict[str, Json]:
        """The task as recipes write it: its kind, and every field."""
        return {self.kind: as_json(self)}

    # Rows. Nothing in this part imports torch, so that a repeated run is recognised in a moment.

    def pin(self, splits: Splits) -> Self:
        """Check the rows and fill in what they decide, such as the list of labels.

        Raises:
            DataError: a column is missing, a label occurs only in the test rows, a split is empty, ...
        """
        return self

    def reference(self, splits: Splits) -> Mapping[str, float | str] | None:
        """What a simple method without a pre-trained model reaches: `{"name": ..., metric: value}`."""
        return None

    # The network.

    @abstractmethod
    def load(self, folder: Path, *, trust_remote_code: bool = False) -> Loaded:
        """Read network, weights (fp32) and processor. New parameters use torch's global generator."""

    @abstractmethod
    def skeleton(self, folder: Path) -> nn.Module:
        """The network that the folder's configuration describes, without its weights: where `rebuild` starts."""

    def sketch(self, folder: Path) -> Loaded:
        """The network without memory for its weights, and its processor, from the configuration alone.

        Called within `torch.device("meta")`, where tensors are made without memory. `fresh` is left empty.
        """
        return Loaded(self.skeleton(folder), self.processor(folder))

    def place(self, sketch: Loaded, folder: Path) -> Loaded | None:
        """Where a folder's tensors belong in the network that was sketched from it: `fresh`, `prefix` and `renamed`.

        As `load` says it. None, as by default, if only `load` can tell: then models are not opened tensor by tensor.

        Raises:
            SourceError: as `load`.
        """
        return None

    def write(
        self,
        module: nn.Module,
        processor: Processor,
        folder: Path,
        tensors: Iterable[tuple[str, Tensor]],
    ) -> None:
        """As `save`, the same bytes, for a network on the meta device whose tensors come one after another.

        Only called for a task that can `place`.

        Args:
            module: with the types and shapes to be written.
            processor: see `save`.
            folder: see `save`.
            tensors: every tensor of the network's state once, by name; of those that share memory one is enough.
        """
        raise NotImplementedError

    def processor(self, folder: Path) -> Processor:
        """The processor alone, for a network that is rebuilt from its skeleton; None if the task has none."""
        return None

    @abstractmethod
    def save(self, module: nn.Module, processor: Processor, folder: Path) -> None:
        """Write network, weights (safetensors only) and processor. The same module gives the same bytes."""

    @abstractmethod
    def head(self, module: nn.Module) -> tuple[str, ...]:
        """Names of the submodules that turn features into the task's outputs."""

    # Batches.

    @abstractmethod
    def encode(self, rows: Rows, processor: Processor) -> Examples:
        """Turn rows into what `collate` takes."""

    @abstractmethod
    def collate(self, examples: Sequence[Mapping[str, Any]], processor: Processor) -> Batch:
        """Pad to the longest and stack. Inputs of the network and targets, by name."""

    def pack(self, examples: Sequence[Mapping[str, Any]], processor: Processor) -> Batch | None:
        """As `collate`, but with short examples one after another in one row, none of which sees another.

        `predictions` then has the targets of the examples in the order in which they lie. None if the task cannot.
        """
        return None

    def length(self, example: Mapping[str, Any]) -> int:
        """What an example costs, for bucketing; 1 if all cost the same."""
        return 1

    @abstractmethod
    def inputs(self, batch: Batch) -> Batch:
        """The part of a batch that the network takes: everything but the targets."""

    @abstractmethod
    def num_targets(self, batch: Batch) -> int:
        """Over how many targets the loss of this batch sums: rows, or tokens that are predicted."""

    # Learning.

    @property
    def meaning(self) -> Literal["categories", "decisions", "numbers"]:
        """What a row of outputs holds; decides how outputs of two networks are compared.

        Scores of categories of which one is right, a score for each of several yes-or-no decisions, or plain numbers.
        """
        return "numbers"

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """The outputs that the loss judges, row by row: [rows, ...], or [targets, ...] if a row has several."""
        return logits

    def num_tokens(self, processor: Processor) -> int | None:
        """If each output stands for a token of the processor: how many of them do. The others only fill up."""
        return None

    def forward(self, module: nn.Module, batch: Batch) -> Tensor:
        """The network's outputs (logits) for a batch."""
        return module(**self.inputs(batch)).logits

    def answers(self, logits: Tensor) -> list[Any]:
        """What the outputs say in the task's own terms, such as label names: one entry a row."""
        return cast("list[Any]", logits.tolist())  # pyright: ignore[reportUnknownMemberType]

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss summed over the batch's targets: a scalar in fp32."""

    @abstractmethod
    def observe(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """What `metrics` needs of each row: tensors whose first dimension is the rows of the batch."""

    @abstractmethod
    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """The task's metrics, from the observations of all rows: each [rows, ...], on the CPU."""

    # Measuring. What a task leaves out here is not measured; nothing else depends on it.

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `metrics` gives: names that gates of a recipe may use."""
        return tuple(dict.fromkeys((self.metric, "loss")))

    def sums(self, observed: Mapping[str, Tensor]) -> Tensor | None:
        """Statistics of each row whose sums over rows decide the metrics, fp64: [rows, statistics].

        Intervals are then had by summing over other draws of the rows. None if there are no such statistics.
        """
        return None

    def metrics_of(self, sums: Tensor) -> dict[str, Tensor]:
        """The metrics that follow from sums over rows [..., statistics]: each [...]."""
        return {}

    def beliefs(self, observed: Mapping[str, Tensor]) -> Beliefs | None:
        """How likely the model holds each answer; None if it does not say."""
        return None

    def row_losses(self, observed: Mapping[str, Tensor]) -> Tensor | None:
        """The loss of each row, averaged over its targets, fp64: [rows]."""
        return None
