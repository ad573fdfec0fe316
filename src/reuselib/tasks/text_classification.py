"""Texts, or pairs of texts, to labels or to a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from reuselib.errors import DataError
from reuselib.task import Batch, Beliefs, Examples, Loaded, Processor, Rows, Task
from reuselib.tasks import baseline, columns, outputs, placing, pretrained, scores, tokens

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.data import Splits

_METRIC = {"single_label": "accuracy", "multi_label": "f1", "regression": "pearson"}
_FIGURES = {
    "single_label": ("accuracy", "f1", "loss"),
    "multi_label": ("f1", "exact_match", "loss"),
    "regression": ("pearson", "mse", "loss"),
}
_MEANING: Mapping[str, Literal["categories", "decisions", "numbers"]] = {
    "single_label": "categories",
    "multi_label": "decisions",
    "regression": "numbers",
}
_PROBLEM = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@dataclass(frozen=True, kw_only=True)
class TextClassification(Task):
    """Give a text, or a pair of texts, one label, several labels, or a number."""

    kind: ClassVar[str] = "text_classification"

    text: str = "text"
    """Column with the text."""
    pair: str | None = None
    """Column with a second text, for tasks on pairs such as entailment."""
    label: str = "label"
    """Column with the label; a list of labels if `problem` is multi_label, a number if regression."""
    labels: tuple[str, ...] | None = None
    """The labels in the order of the network's outputs; null: those of the training rows, sorted."""
    problem: Literal["single_label", "multi_label", "regression"] = "single_label"
    """What is predicted: one label, any number of labels, or a number."""
    max_length: int = 128
    """Tokens at which a text is cut, special tokens included."""

    def __post_init__(self) -> None:
        if self.problem not in _PROBLEM:
            raise DataError(
                f"problem is {self.problem!r}", expected=f"one of: {', '.join(_PROBLEM)}"
            )
        if self.problem == "regression" and self.labels is not None:
            raise DataError(
                "labels are given, but a regression has none",
                fix="remove `labels`, or choose another `problem`",
            )
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise DataError(f"labels holds one label twice: {self.labels}", fix="remove one")
        if self.max_length < 1:
            raise DataError(f"max_length is {self.max_length}", expected="at least 1")

    @property
    def metric(self) -> str:  # type: ignore[override]
        """Accuracy, micro F1 or Pearson's correlation, by problem."""
        return _METRIC[self.problem]

    # Rows.

    def pin(self, splits: Splits) -> TextClassification:
        """Check the columns and fill in the labels."""
        texts = (self.text,) if self.pair is None else (self.text, self.pair)
        columns.require_columns(splits, (*texts, self.label))
        for name in texts:
            columns.require_text(splits, name)
        if self.problem == "regression":
            columns.require_numbers(splits, self.label)
            return self
        many = self.problem == "multi_label"
        return replace(self, labels=columns.find_labels(splits, self.label, self.labels, many=many))

    def reference(self, splits: Splits) -> Mapping[str, float | str] | None:
        """A linear model on TF-IDF features; not for regression, nor for very many rows."""
        num_rows = len(splits.train) + len(splits.test)
        if self.problem == "regression" or num_rows > baseline.MAX_ROWS:
            return None
        train, test = splits.train, splits.test
        score = baseline.score(
            self._texts(train), self._targets(train), self._texts(test), self._targets(test)
        )
        return None if score is None else {"name": baseline.NAME, self.metric: score}

    # The network.

    def load(self, folder: Path, *, trust_remote_code: bool = False) -> Loaded:
        """Read the network; its head is new if the folder has none for these labels."""
        from transformers import AutoModelForSequenceClassification

        config = pretrained.read_config(folder, trust_remote_code=trust_remote_code)
        new_head = outputs.describes_others(config, self.labels)
        self._describe(config)
        tokenizer = tokens.read_tokenizer(
            folder, config, max_length=self.max_length, trust_remote_code=trust_remote_code
        )
        loaded = pretrained.read_network(
            AutoModelForSequenceClassification,
            folder,
            config,
            trust_remote_code=trust_remote_code,
            new_head=new_head,
        )
        tokens.fit_to_network(tokenizer, loaded.module)
        tokens.fit_for_padding(tokenizer, loaded.module)
        return replace(loaded, processor=tokenizer)

    def skeleton(self, folder: Path) -> nn.Module:
        """The network of the folder's configuration, without its weights."""
        from transformers import AutoModelForSequenceClassification

        config = pretrained.read_config(folder)
        self._describe(config)
        return pretrained.skeleton(AutoModelForSequenceClassification, config)

    def sketch(self, folder: Path) -> Loaded:
        """See `Task.sketch`; the tokenizer gives what the network takes."""
        loaded = super().sketch(folder)
        tokens.fit_to_network(loaded.processor, loaded.module)
        tokens.fit_for_padding(loaded.processor, loaded.module)
        return loaded

    def processor(self, folder: Path) -> Processor:
        """The folder's tokenizer."""
        config = pretrained.read_config(folder)
        return tokens.read_tokenizer(folder, config, max_length=self.max_length)

    def save(self, module: nn.Module, processor: Processor, folder: Path) -> None:
        """Write what `AutoModelForSequenceClassification` and `AutoTokenizer` read."""
        pretrained.save(module, processor, folder)

    def write(
        self,
        module: nn.Module,
        processor: Processor,
        folder: Path,
        tensors: Iterable[tuple[str, Tensor]],
    ) -> None:
        """See `Task.write`."""
        pretrained.save(module, processor, folder, tensors)

    def place(self, sketch: Loaded, folder: Path) -> Loaded | None:
        """See `Task.place`; a head for other labels is not taken over."""
        new_head = outputs.describes_others(pretrained.read_config(folder), self.labels)
        return placing.place(sketch, folder, heads=self.head(sketch.module), new_head=new_head)

    def head(self, module: nn.Module) -> tuple[str, ...]:
        """What lies outside the base model, such as `classifier`."""
        return pretrained.head(module)

    # Batches.

    def encode(self, rows: Rows, processor: Processor) -> Examples:
        """Tokens of each row and its target, where rows have one."""
        texts, pairs = self._columns(rows)
        examples = tokens.tokenize(processor, texts, pairs, self.max_length)
        if not columns.has_column(rows, self.label):
            return examples
        for example, target in zip(examples, self._targets(rows), strict=True):
            example["labels"] = target
        return examples

    def collate(self, examples: Sequence[Mapping[str, Any]], processor: Processor) -> Batch:
        """Pad to the longest; targets are indices, or floats if several or none are labels."""
        import numpy as np
        import torch

        batch = tokens.pad(examples, processor, side=processor.padding_side)
        if "labels" not in examples[0]:
            return batch
        dtype = np.int64 if self.problem == "single_label" else np.float32
        targets = np.array([example["labels"] for example in examples], dtype=dtype)
        return {**batch, "labels": torch.from_numpy(targets)}

    def length(self, example: Mapping[str, Any]) -> int:
        """Number of tokens."""
        return len(example["input_ids"])

    def inputs(self, batch: Batch) -> Batch:
        """Everything but the labels."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def num_targets(self, batch: Batch) -> int:
        """Rows, or rows times labels where each is a decision."""
        return batch["labels"].numel()

    # Learning.

    @property
    def meaning(self) -> Literal["categories", "decisions", "numbers"]:
        """By problem."""
        return _MEANING[self.problem]

    def answers(self, logits: Tensor) -> list[Any]:
        """A label of each row, a tuple of labels, or a number."""
        return outputs.answers(logits, self.labels or (), self.problem)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, binary cross-entropy or squared error: summed, in fp32."""
        from torch.nn import functional

        logits, labels = logits.float(), batch["labels"]
        if self.problem == "single_label":
            return functional.cross_entropy(logits, labels, reduction="sum")
        if self.problem == "multi_label":
            return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")

    def observe(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Logits and labels."""
        return {"logits": logits.float(), "labels": batch["labels"]}

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """Accuracy and macro F1, micro F1 and exact match, or Pearson and MSE; and the loss."""
        logits, labels = observed["logits"], observed["labels"]
        if self.problem == "single_label":
            return scores.single_label(logits, labels)
        if self.problem == "multi_label":
            return scores.multi_label(logits, labels)
        return scores.regression(logits.squeeze(-1), labels)

    # Measuring.

    @property
    def metric_names(self) -> tuple[str, ...]:
        """By problem, see `metrics`."""
        return _FIGURES[self.problem]

    def sums(self, observed: Mapping[str, Tensor]) -> Tensor:
        """What decides every metric."""
        logits, labels = observed["logits"], observed["labels"]
        if self.problem == "single_label":
            return scores.single_label_sums(logits, labels)
        if self.problem == "multi_label":
            return scores.multi_label_sums(logits, labels)
        return scores.regression_sums(logits.squeeze(-1), labels)

    def metrics_of(self, sums: Tensor) -> dict[str, Tensor]:
        """Every metric."""
        if self.problem == "single_label":
            return scores.single_label_of(sums)
        return (
            scores.multi_label_of(sums)
            if self.problem == "multi_label"
            else scores.regression_of(sums)
        )

    def beliefs(self, observed: Mapping[str, Tensor]) -> Beliefs | None:
        """Probabilities of the labels; None for a regression."""
        return outputs.beliefs(
            observed["logits"], observed["labels"], self.labels or (), self.problem
        )

    def row_losses(self, observed: Mapping[str, Tensor]) -> Tensor:
        """As in `loss`, of each row."""
        return scores.losses(observed["logits"], observed["labels"], self.problem)

    # Inside.

    def _describe(self, config: Any) -> None:
        if self.problem == "regression":
            outputs.describe(config, ("LABEL_0",), "regression")
        elif self.labels is not None:
            outputs.describe(config, self.labels, _PROBLEM[self.problem])

    def _columns(self, data: Rows) -> tuple[list[str], list[str] | None]:
        pairs = None if self.pair is None else columns.column(data, self.pair)
        return columns.column(data, self.text), pairs

    def _texts(self, data: Rows) -> list[str]:
        texts, pairs = self._columns(data)
        return (
            texts if pairs is None else [" ".join(both) for both in zip(texts, pairs, strict=True)]
        )

    def _targets(self, data: Rows) -> list[Any]:
        """An index, an array of 0 and 1 over the labels, or a number, for each row."""
        values = columns.column(data, self.label)
        if self.problem == "regression":
            return [float(value) for value in values]
        if self.labels is None:
            raise DataError(
                "the labels of this task are not known yet",
                expected="a task that `pin` has completed",
                fix="call `task = task.pin(splits)`, or set `labels`",
            )
        if self.problem == "single_label":
            return columns.label_indices(values, self.labels)
        return columns.label_matrix(values, self.labels)
