"""What must hold between a parent's tensors and those of a child that was cut out of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reuselib.adapter import Finding, Weights
from reuselib.errors import IntegrityError
from reuselib.measure.claims import same_bits
from reuselib.network.cutting import Cut


def cut_out(
    parent: Weights,
    child: Weights,
    plan: Cut,
    *,
    new: Sequence[str] = (),
    tied: Sequence[Sequence[str]] = (),
) -> Iterable[Finding]:
    """Every tensor of the child is what the cut leaves of the parent's, bit for bit, and nothing is lost or added.

    Args:
        parent: its tensors.
        child: its tensors.
        plan: the recorded cut.
        new: names, before the cut, that the parent does not hold, such as those of a new head.
        tied: groups of names, before the cut, under which one tensor may be stored.
    """
    came_from = {
        renamed: name for name in (*parent, *new) if (renamed := plan.renamed(name)) is not None
    }
    groups = [{plan.renamed(name) for name in group} for group in tied]
    yield _names(set(child), set(came_from), groups)
    for group in tied:
        held = [name for name in group if name in parent]
        for name in group:
            if held and name not in parent and (renamed := plan.renamed(name)) is not None:
                came_from[renamed] = held[0]
    yield _survivors(parent, child, plan, came_from)
    known = next((name for name in new if name in parent), "")
    yield Finding("what is new is not in the parent", not known, tensor=known)


def _names(found: set[str], wanted: set[str], groups: Sequence[set[str | None]]) -> Finding:
    def stored_otherwise(name: str, there: set[str]) -> bool:
        return any(name in group and group & there for group in groups)

    lacking = [n for n in sorted(wanted - found) if not stored_otherwise(n, found)]
    extra = [n for n in sorted(found - wanted) if not stored_otherwise(n, wanted)]
    odd = (lacking + extra)[:1]
    detail = "" if not odd else "missing in the child" if lacking else "not what the cut leaves"
    return Finding(
        "the child's tensors are those that the cut leaves", not odd, detail, "".join(odd)
    )


def _survivors(parent: Weights, child: Weights, plan: Cut, came_from: dict[str, str]) -> Finding:
    claim = "every tensor is what the recorded cut leaves of the parent's, bit for bit"
    num_compared = 0
    for name in child:
        source = came_from.get(name, "")
        if source not in parent:
            continue
        try:
            wanted = plan.survivor(source, parent[source])
        except IntegrityError as error:
            return Finding(claim, False, error.what, name)
        if not same_bits(child[name], wanted):
            return Finding(claim, False, "differs from what the cut leaves", name)
        num_compared += 1
    return Finding(claim, num_compared > 0, f"{num_compared} tensors compared")
