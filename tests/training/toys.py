"""Two tiny tasks that need neither a hub nor a tokenizer: dense rows, and token sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from reuselib.task import Batch, Loaded, Task


class Toy(Task):
    """What both have in common: nothing is read from or written to a folder."""

    def load(self, folder: Path, *, trust_remote_code: bool = False) -> Loaded:
        raise NotImplementedError

    def skeleton(self, folder: Path) -> nn.Module:
        raise NotImplementedError

    def save(self, module: nn.Module, processor: object, folder: Path) -> None:
        raise NotImplementedError

    def head(self, module: nn.Module) -> tuple[str, ...]:
        return ()

    def encode(self, rows: Sequence[Mapping[str, Any]], processor: object) -> Any:
        return rows


@dataclass(frozen=True)
class Points(Toy):
    """Classify points in the plane."""

    kind: ClassVar[str] = "points"
    metric: ClassVar[str] = "accuracy"

    def collate(self, examples: Sequence[Mapping[str, Any]], processor: object) -> Batch:
        return {
            "x": torch.from_numpy(np.stack([example["x"] for example in examples])),
            "y": torch.tensor([example["y"] for example in examples]),
        }

    def inputs(self, batch: Batch) -> Batch:
        return {"x": batch["x"]}

    def num_targets(self, batch: Batch) -> int:
        return len(batch["y"])

    def forward(self, module: nn.Module, batch: Batch) -> Tensor:
        return module(batch["x"])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(logits, batch["y"], reduction="sum")

    def observe(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"logits": logits, "y": batch["y"]}

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        right = observed["logits"].argmax(-1) == observed["y"]
        loss = nn.functional.cross_entropy(observed["logits"], observed["y"])
        return {"accuracy": right.float().mean().item(), "loss": loss.item()}


@dataclass(frozen=True)
class Tokens(Toy):
    """Predict a label for each token; rows have different lengths, so batches have different numbers of targets."""

    kind: ClassVar[str] = "tokens"
    metric: ClassVar[str] = "loss"
    greater_is_better: ClassVar[bool] = False

    def length(self, example: Mapping[str, Any]) -> int:
        return len(example["input_ids"])

    def collate(self, examples: Sequence[Mapping[str, Any]], processor: object) -> Batch:
        longest = max(len(example["input_ids"]) for example in examples)
        ids = np.zeros((len(examples), longest), dtype=np.int64)
        labels = np.full((len(examples), longest), -100, dtype=np.int64)
        mask = np.zeros((len(examples), longest), dtype=np.int64)
        for row, example in enumerate(examples):
            size = len(example["input_ids"])
            ids[row, :size] = example["input_ids"]
            labels[row, :size] = example["labels"]
            mask[row, :size] = 1
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
        }

    def inputs(self, batch: Batch) -> Batch:
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}

    def num_targets(self, batch: Batch) -> int:
        return int((batch["labels"] != -100).sum())

    def forward(self, module: nn.Module, batch: Batch) -> Tensor:
        return module(**self.inputs(batch))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch["labels"].flatten(), reduction="sum"
        )

    def observe(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        loss = nn.functional.cross_entropy(
            logits.transpose(1, 2), batch["labels"], reduction="none"
        )
        return {"loss": loss.sum(-1), "count": (batch["labels"] != -100).sum(-1)}

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": (observed["loss"].sum() / observed["count"].sum()).item()}


class Tagger(nn.Module):
    """Embeds tokens, adds the mean of the row, and tags them."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of every token."""
        weight = attention_mask.unsqueeze(-1).float()
        embedded = self.embedding(input_ids) * weight
        mean = embedded.sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return self.head(self.dropout(self.norm(embedded + mean)))


def points(num_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two classes, divided by a line."""
    random = np.random.default_rng(seed)
    xs = random.normal(size=(num_rows, 2)).astype(np.float32)
    return [{"x": x, "y": int(x[0] + x[1] > 0)} for x in xs]


def token_rows(num_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of 1 to 12 tokens; the label is the token's remainder by 3, and a third are not targets."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        ids = random.integers(0, 50, random.integers(1, 13))
        labels = np.where(random.random(len(ids)) < 0.3, -100, ids % 3)
        labels[0] = ids[0] % 3
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def network(seed: int = 0) -> nn.Sequential:
    """A small network for `Points`."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))


def tagger(seed: int = 0, dropout: float = 0.0) -> Tagger:
    """A small network for `Tokens`."""
    torch.manual_seed(seed)
    return Tagger(dropout)
