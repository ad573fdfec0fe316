"""What the relation between two models looks like, from their weights alone. A guess, and marked as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from reuselib.forensics.changes import TensorChange
from reuselib.forensics.likeness import Evidence, Relation, Side, alike
from reuselib.forensics.matching import block_of
from reuselib.forensics.view import INTEGER

_HEAD = re.compile(r"(^|\.)(\w*classifier|score|\w*head|logits|qa_outputs|pooler|fc)(\.|$)")
_SHORT = ("BF16", "F16", "F8_E4M3", "F8_E5M2")


def relate(evidence: Evidence) -> Relation:
    """The first rule that fits, from the most telling to the least."""
    rules: tuple[Callable[[Evidence], Relation | None], ...] = (
        _adapter,
        _unrelated,
        _same,
        _cut,
        _other_start,
        _cast,
        _quantized,
        _masked,
        _merged,
    )
    for rule in rules:
        if found := rule(evidence):
            return found
    return _tuned(evidence)


def _adapter(e: Evidence) -> Relation | None:
    if e.one.is_update == e.other.is_update:
        return None
    side: Side = "A" if e.one.is_update else "B"
    update, base = (e.one, e.other) if e.one.is_update else (e.other, e.one)
    sizes = {
        n.rpartition(".weight")[0]: w.shape for n, w in base.weights.items() if len(w.shape) > 1
    }
    targets, fitting, ranks = 0, 0, set()
    for name, down in update.weights.items():
        if ".lora_A." not in name or len(down.shape) != 2:
            continue
        up = update.weights.get(name.replace(".lora_A.", ".lora_B."))
        target = name.partition(".lora_A.")[0]
        shape = next((s for n, s in sizes.items() if n and _ends_alike(target, n)), None)
        targets += 1
        ranks.add(down.shape[0])
        fitting += up is not None and shape in (
            (up.shape[0], down.shape[1]),
            (down.shape[1], up.shape[0]),
        )
    if not targets or not fitting:
        return Relation("unrelated", f"{side} is a LoRA adapter, of another model", "", 0.0)
    rank = "/".join(map(str, sorted(ranks)))
    other = "B" if side == "A" else "A"
    fit = f"fits {other} by names and shapes: {fitting} of {targets} targets"
    text = f"{side} is a LoRA adapter (rank {rank}) that {fit}"
    return Relation("adapter", text, side, fitting / targets)


def _ends_alike(one: str, other: str) -> bool:
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _unrelated(e: Evidence) -> Relation | None:
    if e.pairs or _cut_matrices(e):
        return None
    return Relation("unrelated", "no tensor of one name and shape is in both", "", 0.0)


def _same(e: Evidence) -> Relation | None:
    if e.changed or e.of("reshaped") or e.matching.blocks:
        return None
    added, removed = e.of("added"), e.of("removed")
    if not added and not removed:
        files = e.one.inventory.files != e.other.inventory.files
        return Relation("same", "the same weights" + (", in other files" if files else ""), "", 1.0)
    if not any(block_of(c.name) is not None for c in (*added, *removed)):
        text = f"the same weights, but for the head: {_more(added, 'B')}{_more(removed, 'A')}"
        return Relation("head", text, "B" if added and not removed else "", e.score)
    return None


def _cut(e: Evidence) -> Relation | None:
    cut = _cut_matrices(e)
    sizes = [sum(w.num_elements for w in v.weights.values()) for v in (e.one, e.other)]
    lost = {block_of(c.name) for c in e.of("removed" if sizes[0] > sizes[1] else "added")} - {None}
    told = [c for c in e.pairs if c.is_matrix]
    if not cut and not (lost and told and all(map(alike, told))):
        return None
    child, parent = _sides("B" if sizes[0] > sizes[1] else "A")
    whole = e.matching.blocks is not None or (lost and not cut)
    what = f"{len(lost)} blocks" if whole else f"slices of {len(e.of('reshaped'))} tensors"
    share = 1 - min(sizes) / max(sizes)
    changed = [c for c in e.changed if c.kind == "changed"]
    rest = f"; {len(changed)} others changed" if changed else ", the rest unchanged"
    text = f"{child} looks like {parent} with {what} taken out ({share:.0%} of the weights){rest}"
    return Relation("cut", text, child, e.score)


def _cut_matrices(e: Evidence) -> list[TensorChange]:
    """Matrices of which one model holds slices of the other's, if that is so for most that differ in size.

    Vectors say nothing: the biases of two strangers may all be zero.
    """
    seen = [c for c in e.of("reshaped") if c.cut is not None and min(map(len, c.shapes)) > 1]
    found = [c for c in seen if c.cut is not None and c.cut.holds]
    return found if len(found) * 2 > len(seen) else []


def _other_start(e: Evidence) -> Relation | None:
    told = [c for c in e.pairs if c.is_matrix]
    if not told or e.score >= 0.25:
        return None
    text = "the same architecture, but another start: the weights have nothing in common"
    if e.of("added", "removed", "reshaped"):
        text = "names in common, but not weights: another start, or another model"
    return Relation("other-start", text, "", e.score)


def _cast(e: Evidence) -> Relation | None:
    if not e.changed or any(c.kind != "cast" for c in e.changed):
        return None
    short = {dtype for c in e.changed for dtype in c.dtypes if dtype in _SHORT}
    in_b = all(c.dtypes[1] in _SHORT for c in e.changed)
    child, parent = _sides("B" if in_b else "A")
    text = f"{child} looks like {parent} cast to {'/'.join(sorted(short)) or 'another type'}"
    return Relation("cast", text, child if short else "", e.score)


def _quantized(e: Evidence) -> Relation | None:
    layers = [c for c in e.changed if c.steps is not None]
    near = [c for c in layers if alike(c)]
    if not near or len(near) < len(layers) / 2:
        return None
    in_b = near[0].dtypes[1] in INTEGER
    child, parent = _sides("B" if in_b else "A")
    schemes = "/".join(sorted({dtype for c in near for dtype in c.dtypes if dtype in INTEGER}))
    worst = max(c.steps for c in near if c.steps is not None)
    others = len([c for c in e.changed if c.kind == "changed"]) - len(near)
    rest = f"; {others} other tensors changed" if others else ""
    text = (
        f"{child} looks like {parent} quantized to {schemes}: {len(near)} layers, at most {worst:.2f} "
        f"steps away{'' if worst <= 0.51 else ', so not by rounding to the nearest alone'}{rest}"
    )
    return Relation("quantized", text, child, e.score)


def _masked(e: Evidence) -> Relation | None:
    # codes are zero wherever a weight is small, which is no mask
    gaps = [c.delta for c in e.changed if c.is_matrix and c.delta and c.steps is None]
    lost, gained = sum(g.lost for g in gaps), sum(g.gained for g in gaps)
    hit = [g for g in gaps if max(g.lost, g.gained) > 0.05 * g.num]
    if not hit or max(lost, gained) < 20 * min(lost, gained):
        return None
    child, parent = _sides("B" if lost > gained else "A")
    at = 1 if lost > gained else 0
    share = sum(g.zeros[at] for g in hit) / sum(g.num for g in hit)
    kept = sum(g.num - g.zeros[at] for g in hit)
    stays = sum(g.same for g in hit) > 0.999 * kept
    # which were the smallest is known from the first of the two only
    by_size = at == 1 and all(g.smallest_lost for g in hit)
    which = "the smallest of each set to zero" if by_size else "set to zero"
    rest = "the rest unchanged" if stays else "then trained"
    text = f"{child} looks like {parent} with {share:.0%} of {len(hit)} matrices {which}, {rest}"
    return Relation("masked", text, child, e.score)


def _merged(e: Evidence) -> Relation | None:
    low = [c for c in e.changed if _low_rank(c)]
    others = [c for c in e.changed if not _low_rank(c)]
    if not low or not all(_HEAD.search(c.name) for c in others):
        return None
    rank = max(c.rank.value for c in low if c.rank and c.rank.value)
    text = f"they differ as by a merged LoRA of rank {rank}: {len(low)} matrices changed by that rank at most"
    return Relation("merged-lora", text + _rest(e, low), "", e.score)


def _low_rank(change: TensorChange) -> bool:
    """Whether a matrix changed by a matrix of at most half the rank that it could have."""
    rank, height = change.rank, change.shapes[0][0] if change.shapes[0] else 0
    if rank is None or not rank.value:
        return False
    return rank.value * 2 <= min(height, change.num_elements // height)


def _tuned(e: Evidence) -> Relation:
    blocks = {b for c in e.pairs if (b := block_of(c.name)) is not None}
    hit = {b for c in e.changed if (b := block_of(c.name)) is not None}
    outside = [c for c in e.changed if block_of(c.name) is None and not _HEAD.search(c.name)]
    moved = [c.delta.relative_l2 for c in e.changed if c.is_matrix and c.delta]
    by = (
        f" (half of the matrices moved by more than {median(moved):.2g} of their norm)"
        if moved
        else ""
    )
    last = sorted(blocks)[-len(hit) :] if hit else []
    if not hit and not outside:
        what = "the head only"
    elif not outside and sorted(hit) == last and len(hit) < len(blocks):
        what = f"the last {len(hit)} of {len(blocks)} blocks"
    elif len(e.changed) == len(e.pairs):
        what = "all tensors"
    else:
        what = f"{len(e.changed)} of {len(e.pairs)} tensors"
    kind = "head" if what == "the head only" else "tuned"
    return Relation(
        kind, f"they differ as by fine-tuning of {what}{by}{_rest(e, e.pairs)}", "", e.score
    )


def _rest(e: Evidence, told: Iterable[TensorChange]) -> str:
    names = {c.name for c in told}
    others = [c for c in e.changed if c.name not in names]
    parts = [f"{len(others)} others changed"] if others else []
    parts += [each for each in (_more(e.of("added"), "B"), _more(e.of("removed"), "A")) if each]
    return f"; {', '.join(parts)}" if parts else ""


def _more(changes: Sequence[TensorChange], side: str) -> str:
    return f"{len(changes)} tensors in {side} only" if changes else ""


def _sides(child: Side) -> tuple[Side, Side]:
    return (child, "A" if child == "B" else "B")
