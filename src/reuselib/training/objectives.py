"""How far a student is from its teacher: pure functions of tensors, in fp32, without a mean over targets.

Like a task's loss they are summed over the targets of a batch, or come one a row or position to be weighted, so that
a batch may be cut into pieces and spread over processes. The teacher's side never gets a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_HIDDEN_SCORE = -1e9
"""In place of minus infinity, whose difference to itself is not a number."""


def categories_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of softened probabilities (Hinton et al., 2015, arXiv 1503.02531).

    Args:
        student: logits [targets, categories].
        teacher: logits [targets, categories].
        temperature: both logits are divided by it. The sum is multiplied by its square, which keeps the gradient's
            size.

    Returns:
        A scalar: the sum over the targets.
    """
    from torch.nn import functional

    own = functional.log_softmax(student.float() / temperature, dim=-1)
    told = functional.log_softmax(teacher.float() / temperature, dim=-1)
    return functional.kl_div(own, told, log_target=True, reduction="sum") * temperature**2


def decisions_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The same where each output is a yes-or-no decision of its own: [rows, decisions], summed over both."""
    from torch.nn.functional import logsigmoid

    own, told = student.float() / temperature, teacher.float() / temperature
    yes = told.sigmoid() * (logsigmoid(told) - logsigmoid(own))
    no = (-told).sigmoid() * (logsigmoid(-told) - logsigmoid(-own))
    return (yes + no).sum() * temperature**2


def numbers_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of outputs that are plain numbers: mean over [rows, ...]'s outputs, summed over the rows."""
    return position_losses(
        student.reshape(len(student), -1), teacher.reshape(len(teacher), -1)
    ).sum()


def top_probabilities(logits: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The largest softened probabilities of each target, to be kept instead of all logits.

    Args:
        logits: [targets, categories], of more than `k` categories.
        k: how many to keep.
        temperature: the logits are divided by it.

    Returns:
        Logarithms of the probabilities [targets, k], fp32, the largest first, and their categories, int32.
    """
    import torch
    from torch.nn import functional

    found = functional.log_softmax(logits.float() / temperature, dim=-1).topk(k, dim=-1)
    return found.values, found.indices.to(torch.int32)


def top_loss(
    student: Tensor, log_probabilities: Tensor, categories: Tensor, temperature: float
) -> Tensor:
    """As `categories_loss`, of a teacher of whom only the top is known.

    All other categories count as a single one, on both sides. So this is never more than the whole divergence, and
    equal to it if the teacher is silent on everything else.

    Args:
        student: logits [targets, categories].
        log_probabilities: of the teacher [targets, k], as `top_probabilities` gives them.
        categories: theirs [targets, k].
        temperature: the one at which the probabilities were taken.
    """
    import torch
    from torch.nn import functional

    whole = functional.log_softmax(student.float() / temperature, dim=-1)
    own = whole.gather(-1, categories.long())
    told = log_probabilities.float()
    top = functional.kl_div(own, told, log_target=True, reduction="none").sum(-1)
    # At least what fp32 can tell from nothing, so that the logarithm stays finite.
    least = torch.finfo(torch.float32).eps
    own_rest, told_rest = ((1 - each.exp().sum(-1)).clamp(min=least) for each in (own, told))
    rest = told_rest * (told_rest.log() - own_rest.log())
    return (top + rest).sum() * temperature**2


def position_losses(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance at each position, as of hidden states (Romero et al., 2015, arXiv 1412.6550).

    Args:
        student: [positions, width].
        teacher: [positions, width].

    Returns:
        [positions].
    """
    return (student.float() - teacher.float()).square().mean(dim=-1)


def row_means(values: Tensor, counts: Tensor) -> Tensor:
    """The mean over each row's positions, from values [positions] that stand one after another: [rows].

    Args:
        values: of all positions.
        counts: number of positions of each row [rows].
    """
    import torch

    row = torch.repeat_interleave(counts)
    sums = torch.zeros(len(counts), dtype=values.dtype, device=values.device)
    return sums.index_add(0, row, values) / counts


def relation_losses(student: Tensor, teacher: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    """KL(teacher || student) of the relations of positions (Wang et al., 2021, MiniLMv2, arXiv 2012.15828).

    A relation is what attention would be between a row's vectors and themselves: the softmax of their scaled dot
    products. The widths of student and teacher may differ, as may the heads of their attention: vectors are cut
    anew into `num_heads` pieces.

    Args:
        student: queries, keys or values of all heads [rows, positions, width].
        teacher: the same [rows, positions, its width].
        mask: whether a position counts [rows, positions]; padding does not.
        num_heads: divides both widths, see `num_relation_heads`.

    Returns:
        Mean over heads and positions: [rows].
    """
    from torch.nn import functional

    own, told = _relations(student, mask, num_heads), _relations(teacher, mask, num_heads)
    divergence = functional.kl_div(own, told, log_target=True, reduction="none").sum(-1).mean(1)
    counted = mask.to(divergence.dtype)
    return (divergence * counted).sum(-1) / counted.sum(-1)


def _relations(vectors: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    """Logarithms [rows, heads, positions, positions]."""
    heads = vectors.float().unflatten(-1, (num_heads, -1)).transpose(1, 2)
    scores = heads @ heads.transpose(-1, -2) / math.sqrt(heads.shape[-1])
    return scores.masked_fill(~mask.bool()[:, None, None, :], _HIDDEN_SCORE).log_softmax(dim=-1)


def num_relation_heads(widths: Iterable[int], most: int) -> int:
    """The most pieces, up to `most`, into which vectors of all these widths can be cut evenly."""
    shared = math.gcd(*widths)
    return max(count for count in range(1, most + 1) if shared % count == 0)
