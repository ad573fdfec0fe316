"""Tokenizers: reading them, and from texts to padded batches without touching single tokens in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import SourceError
from reuselib.tasks import pretrained
from reuselib.training.packing import bins

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from reuselib.task import Batch, Processor


def read_tokenizer(
    folder: Path, config: Any, *, max_length: int, trust_remote_code: bool = False
) -> Processor:
    """The tokenizer in a folder that executes nothing.

    Raises:
        SourceError: there is none, or `max_length` is beyond what the network takes.
    """
    from transformers import AutoTokenizer

    with pretrained.reading(folder):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    _require_vocabulary(tokenizer, folder)
    limit = tokenizer.model_max_length
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None:
        limit = min(limit, positions)
    if max_length > limit:
        raise SourceError(
            f"max_length is {max_length}, but '{folder.name}' takes at most {limit} tokens",
            expected=f"at most {limit}",
            fix=f"set `max_length: {limit}` in the task",
        )
    return tokenizer


def _require_vocabulary(tokenizer: Processor, folder: Path) -> None:
    """Transformers makes up an empty tokenizer where there is none, to which every word is unknown."""
    # Tokenizers of bytes have no vocabulary, hence no file of it.
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if tokenizer.vocab_files_names and not any((folder / name).is_file() for name in files):
        raise SourceError(
            f"'{folder.name}' holds no tokenizer",
            expected=f"one of: {', '.join(sorted(files))}",
            fix="copy the tokenizer's files of the original model into the folder",
        )


def fit_to_network(tokenizer: Processor, module: nn.Module) -> None:
    """Make the tokenizer give only inputs that the network takes: not all take token types."""
    accepted = pretrained.accepted_inputs(module, tokenizer.model_input_names)
    if accepted != list(tokenizer.model_input_names):
        tokenizer.model_input_names = accepted
        # What is written with the tokenizer, so that others need not find out.
        tokenizer.init_kwargs["model_input_names"] = accepted


def fit_for_padding(tokenizer: Processor, module: Any) -> None:
    """Make sure that tokenizer and network agree on a padding token.

    Networks that classify by the last token of a text find it by its not being padding. A tokenizer
    without a padding token pads with its end token.

    Raises:
        SourceError: the tokenizer has neither.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise SourceError(
                "the tokenizer has neither a padding nor an end token",
                expected="one of them, to fill batches of unequal lengths",
                fix="set `pad_token` in tokenizer_config.json",
            )
        tokenizer.pad_token = tokenizer.eos_token
    if getattr(module.config, "pad_token_id", None) is None:
        module.config.pad_token_id = tokenizer.pad_token_id


def tokenize(
    tokenizer: Processor, texts: list[str], pairs: list[str] | None, max_length: int
) -> list[dict[str, Any]]:
    """Token ids (int32) and, if the tokenizer gives them, token types; cut but not padded.

    The whole list goes to the tokenizer at once, which spreads it over the cores unless the environment
    says `TOKENIZERS_PARALLELISM=false`. The attention mask follows from the lengths and is not kept.
    """
    import numpy as np

    if not texts:
        return []
    encoded = tokenizer(
        texts,
        pairs,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
    )
    names = [name for name in encoded if name in ("input_ids", "token_type_ids")]
    return [
        {name: np.array(ids, dtype=np.int32) for name, ids in zip(names, row, strict=True)}
        for row in zip(*(encoded[name] for name in names), strict=True)
    ]


def pad(
    examples: Sequence[Mapping[str, Any]], tokenizer: Processor, *, side: str = "right"
) -> Batch:
    """Pad token arrays to the longest and add the attention mask."""
    import numpy as np
    import torch

    lengths = np.fromiter((len(example["input_ids"]) for example in examples), np.int64)
    longest = int(lengths.max())
    positions = np.arange(longest)
    starts = (longest - lengths if side == "left" else np.zeros_like(lengths))[:, None]
    mask = (positions >= starts) & (positions < starts + lengths[:, None])
    # Without a padding token any will do: the mask hides it.
    padding = tokenizer.pad_token_id or 0
    batch = {"input_ids": _fill(examples, "input_ids", mask, padding)}
    if "token_type_ids" in examples[0]:
        batch["token_type_ids"] = _fill(
            examples, "token_type_ids", mask, tokenizer.pad_token_type_id
        )
    batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    return batch


def pack(
    examples: Sequence[Mapping[str, Any]], tokenizer: Processor, capacity: int, *, ignored: int
) -> Batch:
    """Lay token arrays one after another in rows of at most `capacity`, which are then padded to the longest.

    Without an attention mask: `position_ids` begin anew with each example, and each token of padding is an example of
    its own.

    Returns:
        `input_ids`, `position_ids` and `labels`, int64: [rows, tokens]. `labels` is `ignored` for the first token of
        each example and for padding.
    """
    import numpy as np
    import torch

    lengths = [len(example["input_ids"]) for example in examples]
    rows = bins(lengths, capacity)
    shape = (len(rows), max(sum(lengths[item] for item in row) for row in rows))
    ids = np.full(shape, tokenizer.pad_token_id or 0, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, ignored, dtype=np.int64)
    for at, row in enumerate(rows):
        start = 0
        for item in row:
            end = start + lengths[item]
            ids[at, start:end] = labels[at, start:end] = examples[item]["input_ids"]
            positions[at, start:end] = np.arange(lengths[item])
            labels[at, start] = ignored
            start = end
    arrays = {"input_ids": ids, "position_ids": positions, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _fill(examples: Sequence[Mapping[str, Any]], name: str, mask: np.ndarray, value: int) -> Tensor:
    import numpy as np
    import torch

    filled = np.full(mask.shape, value, dtype=np.int64)
    filled[mask] = np.concatenate([example[name] for example in examples])
    return torch.from_numpy(filled)
