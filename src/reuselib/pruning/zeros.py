"""What must hold between a network's weights and those of a child in which more of them are zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reuselib.adapter import Finding, Weights
from reuselib.measure.chunks import pieces
from reuselib.measure.claims import faultless, same_bits
from reuselib.pruning.masks import PATTERNS, Quota, num_too_full
from reuselib.pruning.sparse import Targets, num_zeros_of


def prove_zeros(targets: Targets, quota: Quota, method: str) -> Iterator[Finding]:
    """Zeros are as many as recorded and as asked for, and what is not zero is the parent's.

    Args:
        targets: the layers.
        quota: what each of them was to lose.
        method: `magnitude`, `wanda` or `sparsegpt`, after which weights that are left may have moved.
    """
    claim = "every target is there, and together they gained zeros"
    absent = next((name for name in targets.zeros if name not in targets.present), "")
    before, after = (_num_zeros(each, targets.present) for each in (targets.parent, targets.child))
    yield Finding(claim, not absent and after > before, tensor=absent)
    if absent:
        return
    yield faultless(
        "every target holds as many zeros as recorded, and no more than asked for",
        _miscounted(targets, quota),
    )
    if quota.pattern is not None:
        claim = f"every group along the inputs is {quota.pattern}"
        yield faultless(claim, _too_full(targets, quota.pattern))
    yield faultless("what the parent holds as zero stays zero", targets.filled())
    yield from _survivors(targets, quota, method)


def _survivors(targets: Targets, quota: Quota, method: str) -> Iterator[Finding]:
    """What became of the weights that are left."""
    if method == "magnitude":
        yield faultless(
            "the zeros are the parent's smallest weights, and all others are its own, bit for bit",
            _other_than_smallest(targets, quota),
            compared=len(targets.present),
        )
    elif method == "wanda":
        yield faultless(
            "all weights that are not zero are the parent's, bit for bit",
            targets.moved(),
            compared=len(targets.present),
        )
    else:
        yield faultless(
            "weights of a layer's first input, which make up for nothing, are the parent's or zero",
            targets.moved(slice(0, 1)),
        )
        yield Finding(
            "the weights that are left make up for those that are gone",
            None,
            "shows on the calibration rows only: run the recipe again",
        )


def _miscounted(targets: Targets, quota: Quota) -> Iterator[tuple[str, str]]:
    for name in targets.present:
        found, recorded = num_zeros_of(targets.child[name]), targets.zeros[name]
        before = num_zeros_of(targets.parent[name])
        least, most = quota.bounds(targets.parent[name].numel(), before)
        if found != recorded or not least <= found <= most:
            asked = f"{least}" if least == most else f"{least} to {most}"
            yield name, f"{found} zeros, recorded {recorded}, {asked} asked for"


def _too_full(targets: Targets, pattern: str) -> Iterator[tuple[str, str]]:
    for name in targets.present:
        matrix = targets.matrix(targets.child, name)
        if matrix.shape[1] % PATTERNS[pattern][1]:
            yield name, f"{matrix.shape[1]} inputs cannot be grouped"
            continue
        number = sum(num_too_full(matrix[rows], pattern) for rows in pieces(matrix.shape))
        if number:
            yield name, f"{number} groups are not"


def _other_than_smallest(targets: Targets, quota: Quota) -> Iterator[tuple[str, str]]:
    for name in targets.present:
        matrix = targets.matrix(targets.parent, name)
        if not matrix.isfinite().all():
            yield name, "the parent's weights are not all finite, so they have no order"
            continue
        wanted = matrix.masked_fill(quota.smallest(matrix), 0.0)
        if not same_bits(targets.matrix(targets.child, name), wanted):
            yield name, "differs from the parent's with its smallest weights zeroed"


def _num_zeros(weights: Weights, names: Sequence[str]) -> int:
    return sum(num_zeros_of(weights[name]) for name in names)
