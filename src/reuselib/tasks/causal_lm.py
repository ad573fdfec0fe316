"""Texts to the probability of each next token."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from reuselib.errors import DataError
from reuselib.task import Batch, Examples, Loaded, Processor, Rows, Task
from reuselib.tasks import columns, placing, pretrained, tokens

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.data import Splits

_IGNORED = -100
"""The label that torch's cross-entropy passes over."""
_MAX_LOSS = 700.0
"""Beyond this the exponential is no longer a finite double, and records hold finite numbers only."""


@dataclass(frozen=True, kw_only=True)
class CausalLM(Task):
    """Continue texts: predict each token from those before it."""

    kind: ClassVar[str] = "causal_lm"
    metric: ClassVar[str] = "perplexity"  # type: ignore[misc]
    greater_is_better: ClassVar[bool] = False
    answers_positions: ClassVar[bool] = True

    text: str = "text"
    """Column with the text."""
    max_length: int = 256
    """Tokens at which a text is cut, special tokens included."""

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise DataError(
                f"max_length is {self.max_length}",
                expected="at least 2: one token to predict, and one to predict it from",
            )

    # Rows.

    def pin(self, splits: Splits) -> CausalLM:
        """Check that the column is there and holds text."""
        columns.require_columns(splits, (self.text,))
        columns.require_text(splits, self.text)
        return self

    # The network.

    def load(self, folder: Path, *, trust_remote_code: bool = False) -> Loaded:
        """Read the network; its head is new only if the folder has none."""
        from transformers import AutoModelForCausalLM

        config = pretrained.read_config(folder, trust_remote_code=trust_remote_code)
        tokenizer = tokens.read_tokenizer(
            folder, config, max_length=self.max_length, trust_remote_code=trust_remote_code
        )
        loaded = pretrained.read_network(
            AutoModelForCausalLM, folder, config, trust_remote_code=trust_remote_code
        )
        tokens.fit_to_network(tokenizer, loaded.module)
        return replace(loaded, processor=tokenizer)

    def skeleton(self, folder: Path) -> nn.Module:
        """The network of the folder's configuration, without its weights."""
        from transformers import AutoModelForCausalLM

        return pretrained.skeleton(AutoModelForCausalLM, pretrained.read_config(folder))

    def sketch(self, folder: Path) -> Loaded:
        """See `Task.sketch`; the tokenizer gives what the network takes."""
        loaded = super().sketch(folder)
        tokens.fit_to_network(loaded.processor, loaded.module)
        return loaded

    def processor(self, folder: Path) -> Processor:
        """The folder's tokenizer."""
        config = pretrained.read_config(folder)
        return tokens.read_tokenizer(folder, config, max_length=self.max_length)

    def save(self, module: nn.Module, processor: Processor, folder: Path) -> None:
        """Write what `AutoModelForCausalLM` and `AutoTokenizer` read."""
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
        """See `Task.place`."""
        return placing.place(sketch, folder, heads=self.head(sketch.module))

    def head(self, module: nn.Module) -> tuple[str, ...]:
        """The output layer, such as `lm_head`, even if it borrows its weights from the embedding."""
        return pretrained.head(module)

    # Batches.

    def encode(self, rows: Rows, processor: Processor) -> Examples:
        """Tokens of each row, and the end token where the text was not cut.

        Raises:
            DataError: a row has no token to predict.
        """
        import numpy as np

        end = processor.eos_token_id
        texts = columns.column(rows, self.text)
        examples = tokens.tokenize(processor, texts, None, self.max_length)
        short: list[int] = []
        for number, example in enumerate(examples):
            # Only the ids: a network that has one segment needs no token types.
            ids = example.pop("input_ids")
            example.clear()
            whole = len(ids) < self.max_length
            if end is not None and whole and (len(ids) == 0 or ids[-1] != end):
                ids = np.append(ids, np.int32(end))
            example["input_ids"] = ids
            if len(ids) < 2:
                short.append(number)
        if short:
            raise DataError(
                f"{len(short)} of {len(texts)} rows hold no token to predict; the first is row "
                f"{short[0]}: {texts[short[0]]!r}",
                expected="texts of two or more tokens",
                fix="drop empty texts from the data",
            )
        return examples

    def collate(self, examples: Sequence[Mapping[str, Any]], processor: Processor) -> Batch:
        """Pad to the longest, on the right: whatever the tokenizer's side, no token follows padding."""
        batch = tokens.pad(examples, processor)
        hidden = batch["attention_mask"] == 0
        return {**batch, "labels": batch["input_ids"].masked_fill(hidden, _IGNORED)}

    def pack(self, examples: Sequence[Mapping[str, Any]], processor: Processor) -> Batch:
        """Texts one after another in rows of at most `max_length` tokens.

        Positions begin anew with each text, from which networks see where attention has to end (Krell et al., 2021,
        https://arxiv.org/abs/2107.02027). The first token of a text is not predicted from the text before it.
        """
        return tokens.pack(examples, processor, self.max_length, ignored=_IGNORED)

    def length(self, example: Mapping[str, Any]) -> int:
        """Number of tokens."""
        return len(example["input_ids"])

    def inputs(self, batch: Batch) -> Batch:
        """Everything but the labels."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def num_targets(self, batch: Batch) -> int:
        """Tokens that are predicted: all but the first of each row."""
        return int((batch["labels"][:, 1:] != _IGNORED).sum())

    # Learning.

    @property
    def meaning(self) -> Literal["categories"]:
        """One token comes next."""
        return "categories"

    def predictions(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of the tokens that are predicted: [tokens, vocabulary]."""
        return logits[:, :-1][batch["labels"][:, 1:] != _IGNORED]

    def num_tokens(self, processor: Processor) -> int | None:
        """The tokenizer's vocabulary; networks often have a few outputs more, to fill up to a round number."""
        return max(processor.get_vocab().values()) + 1

    def forward(self, module: nn.Module, batch: Batch) -> Tensor:
        """Logits; without the cache for generation, which would only take memory."""
        options = dict.fromkeys(pretrained.accepted_inputs(module, ("use_cache",)), False)
        return module(**self.inputs(batch), **options).logits

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the next tokens: summed, in fp32."""
        return self._losses(logits, batch).sum()

    def observe(self, logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """Loss and number of predicted tokens of each row."""
        counts = (batch["labels"][:, 1:] != _IGNORED).sum(dim=1)
        return {"loss": self._losses(logits, batch).double().sum(dim=1), "tokens": counts}

    def metrics(self, observed: Mapping[str, Tensor]) -> dict[str, float]:
        """Mean loss a token, and its exponential."""
        loss = observed["loss"].sum().item() / observed["tokens"].sum().item()
        return {"perplexity": math.exp(min(loss, _MAX_LOSS)), "loss": loss}

    # Measuring.

    @property
    def metric_names(self) -> tuple[str, ...]:
        """See `metrics`."""
        return ("perplexity", "loss")

    def sums(self, observed: Mapping[str, Tensor]) -> Tensor:
        """Loss and predicted tokens: [rows, 2]."""
        import torch

        return torch.stack([observed["loss"].double(), observed["tokens"].double()], dim=-1)

    def metrics_of(self, sums: Tensor) -> dict[str, Tensor]:
        """Every metric."""
        loss = sums[..., 0] / sums[..., 1]
        return {"perplexity": loss.clamp(max=_MAX_LOSS).exp(), "loss": loss}

    def row_losses(self, observed: Mapping[str, Tensor]) -> Tensor:
        """Mean loss a token of each row."""
        return observed["loss"].double() / observed["tokens"]

    # Inside.

    def _losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of each position [rows, tokens - 1]; 0 where nothing is predicted."""
        from torch.nn import functional

        targets = batch["labels"][:, 1:]
        predictions = logits[:, :-1].float()
        losses = functional.cross_entropy(
            predictions.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="none"
        )
        return losses.view(targets.shape)
