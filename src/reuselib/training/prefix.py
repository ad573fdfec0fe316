"""The frozen lower part of a network, run once for all epochs: what it gives is kept, and training begins above it.

That is exact if the part gives the same for a row whenever it runs: it draws no random numbers, changes no buffer, and
nothing of it but the one value that is kept reaches the part above. All three are seen by running it, so there is no
table of networks. It pays if there is more than one epoch and if computing a value takes longer than reading it
(freezing and reusing: Liu et al., 2021, AutoFreeze, https://arxiv.org/abs/2102.01386).

How rounding falls in what is kept depends on nothing but rows, weights and machine: rows are run in an order of their
own, so that a run that finds the values on the disk trains the same bits as one that computes them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.errors import TrainingError
from reuselib.training.search import Search, Site, Way, may_keep

if TYPE_CHECKING:
    from reuselib.training.pieces import Piece


@dataclass
class Prefix:
    """What a training knows of the frozen lower part of its network."""

    way: Way | None = None
    """Past it; None if it runs as all else does."""
    facts: dict[str, str | int] = field(default_factory=dict[str, "str | int"])
    """For the record."""
    seconds: float = 0.0
    """That it took to get ready."""

    def past(self, piece: Piece) -> AbstractContextManager[None]:
        """Within, the upper part alone runs on that piece; the whole network if nothing is kept."""
        return nullcontext() if self.way is None else self.way.past(piece)


@contextmanager
def frozen_prefix(site: Site) -> Iterator[Prefix]:
    """Find out about the lower part, and get ready to go past it if that is exact and pays.

    Raises:
        TrainingError: `frozen: eval` has no effect, because what learns begins with the first block.
        StoreError: there is no room for what is to be kept.
    """
    started = time.perf_counter()
    prefix = Prefix()
    if _is_of_interest(site):
        search = Search(site)
        prefix.way = search.go()
        if search.said:
            prefix.facts["prefix_cache"] = search.said
            prefix.facts["cache_bytes"] = search.room
    prefix.seconds = time.perf_counter() - started
    if prefix.way is None:
        yield prefix
        return
    with prefix.way.bypass.installed():
        yield prefix


def _is_of_interest(site: Site) -> bool:
    """Whether there is a reason to look at the network at all."""
    frozen = any(name not in site.stages.opens for name, _ in site.module.named_parameters())
    if site.plan.frozen == "eval" and not frozen:
        raise TrainingError(
            "`frozen: eval` has no effect: every weight learns",
            expected="frozen blocks below those that learn",
            fix="leave `frozen` away, or train less, such as `block[-2:]` and the head",
        )
    return frozen and (site.plan.frozen == "eval" or may_keep(site))
