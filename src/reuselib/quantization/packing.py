"""Codes of 4 or 8 bits side by side in 32-bit integers, as compressed-tensors' `pack-quantized` format lays them out.

Each code is stored with an offset that makes it unsigned, the first in the lowest bits; a row starts a new integer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def num_words(num_columns: int, bits: int) -> int:
    """32-bit integers in a packed row."""
    return -(-num_columns * bits // 32)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack int8 [rows, columns] into int32 [rows, words]; what is left of the last word of a row is zero."""
    import torch

    per_word = 32 // bits
    columns = num_words(codes.shape[1], bits) * per_word
    unsigned = codes.to(torch.int64) + (1 << (bits - 1))
    fields = torch.nn.functional.pad(unsigned, (0, columns - codes.shape[1]))
    shifts = torch.arange(per_word, device=codes.device) * bits
    words = (fields.unflatten(1, (-1, per_word)) << shifts).sum(dim=-1)
    # from [0, 2^32) to the signed integer of the same bits
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def unpack(words: Tensor, bits: int, num_columns: int) -> Tensor:
    """Reverse `pack`: int32 [rows, words] to int8 [rows, num_columns]."""
    import torch

    shifts = torch.arange(32 // bits, device=words.device) * bits
    fields = (words.to(torch.int64).unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    return (fields.flatten(1)[:, :num_columns] - (1 << (bits - 1))).to(torch.int8)
