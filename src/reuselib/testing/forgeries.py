"""Children that are not what their record says: one for each claim of each adapter, and whether it is found out.

What can be forged without being found out is not among them, see docs/how-to/prove-a-model.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.evidence.prove import prove_step
from reuselib.testing.forgers import (
    BLOCK,
    DENSE,
    MORE,
    QUERY,
    UPDATE,
    Forge,
    any_bound,
    as_the_parent,
    ask,
    base_tensor,
    both,
    edit,
    fold,
    head_said_to_be_new,
    other_block,
    other_indices,
    other_inputs,
    other_share,
    put,
    reparent,
    rescaled,
    state,
    swap,
    teacher_replaced,
    weights_of_twin,
)
from reuselib.testing.honest import CHAINS, Honest
from reuselib.testing.touches import emptied, filled, nudged, one_more_rank, other_mask, wider

if TYPE_CHECKING:
    from reuselib.evidence.proof import ProvenStep


@dataclass(frozen=True)
class Forgery:
    """One false claim."""

    child: str
    """Of which honest child, see `honest.CHAINS`."""
    what: str
    forge: Forge

    def try_on(self, honest: Honest, folder: Path) -> ProvenStep:
        """Forge a copy at `folder` and have it proven."""
        shutil.copytree(honest.child(self.child), folder)
        self.forge(folder, honest)
        return prove_step(folder, store=honest.store)


MOVED: Sequence[tuple[str, str]] = (
    ("finetune", "frozen tensor"),
    ("merge", "tensor that is no target"),
    ("prune", "survivor"),
    ("prune-blocks", "survivor"),
    ("prune-hidden", "survivor"),
    ("sparsify", "weight that is left"),
    ("sparsify-2:4", "weight that is left"),
    ("sparsify-wanda", "weight that is left"),
)
"""Children in which the block's dense layer, or a part of it, is what it was."""

OF_ANOTHER = (
    "finetune",
    "merge",
    "average",
    "prune",
    "prune-blocks",
    "prune-hidden",
    "prune-channels",
    "sparsify",
    "sparsify-2:4",
    "sparsify-wanda",
    "sparsify-sparsegpt",
    "quantize-int8",
    "quantize-int4",
    "quantize-gptq",
    "quantize-awq",
    "quantize-smooth",
    "quantize-bf16",
)
"""Children whose weights are bound to their parent's; what trains all weights binds none."""


def _kept(child: str) -> str:
    """A tensor that the child's step left as it was, or what is left of it."""
    kept = {"merge": "*embeddings.LayerNorm.weight", "prune-blocks": "*.output.dense.weight"}
    return kept.get(child, f"{DENSE}.weight")


_TRAINED: Mapping[str, Mapping[str, Forge]] = {
    "finetune": {
        "frozen bias moved": edit(f"{DENSE}.bias", lambda t: t + 1e-6),
        "frozen tensors swapped": swap(f"{QUERY}.weight", f"{BLOCK}.0.attention.self.key.weight"),
        "frozen embeddings in another order": edit("*word_embeddings.weight", lambda t: t.flip(0)),
        "frozen tensor said to be a statistic": both(
            edit(f"{DENSE}.weight", nudged),
            state(lambda s: s["statistics"].append(f"{DENSE}.weight")),
        ),
        "trained tensor in another type": edit("classifier.weight", lambda t: t.bfloat16()),
        "tensor added": put(lambda t, _: {"classifier.more": t["classifier.bias"].clone()}),
        "tensor left out": edit(f"{DENSE}.bias", lambda _: None),
        "nothing was trained": as_the_parent,
    },
    "lora": {
        "rank r+1": put(
            lambda t, _: {
                f"{UPDATE}A.weight": wider(0)(t[f"{UPDATE}A.weight"]),
                f"{UPDATE}B.weight": wider(1)(t[f"{UPDATE}B.weight"]),
            }
        ),
        "another rank than the recipe's": ask(lambda recipe: recipe.update(r=3)),
        "tensor of the base brought along": put(base_tensor),
        "tensor of the base said to be new": both(
            put(base_tensor), state(lambda s: s["saved"].append(f"{DENSE}.weight"))
        ),
        "layer that the base does not have": both(
            put(
                lambda t, _: {
                    f"{MORE}.lora_{side}.weight": t[f"{UPDATE}{side}.weight"].clone()
                    for side in "AB"
                }
            ),
            state(lambda s: s["targets"].append("bert.more")),
        ),
        "layer left out": edit(f"{UPDATE}B.weight", lambda _: None),
        "weights that are no numbers": edit(f"{UPDATE}B.weight", lambda t: t * float("nan")),
    },
    "distill": {
        "nothing was learned": as_the_parent,
        "tensor left out": edit(f"{DENSE}.bias", lambda _: None),
        "tensor in another type": edit("classifier.weight", lambda t: t.half()),
    },
    "distill-teacher": {
        "teacher replaced in the recipe": teacher_replaced,
        "teacher left out of the recipe": ask(lambda recipe: recipe.update(teachers=[])),
    },
    "distill-blocks": {
        "start said to be made of other blocks": ask(lambda recipe: recipe.update(blocks=[0])),
        "start said to be whole": state(lambda s: s.update(cut=None)),
    },
}
_MERGED: Mapping[str, Mapping[str, Forge]] = {
    "merge": {
        "merged delta scaled": edit(f"{QUERY}.weight", lambda t: t * 1.001),
        "scale stated otherwise": state(lambda s: s.update(scale=s["scale"] * 2)),
        "target with one more rank": edit(f"{QUERY}.weight", one_more_rank),
        "target moved by a hundred thousandth": edit(f"{QUERY}.weight", lambda t: t * (1 + 1e-5)),
        "target left out of the record": state(lambda s: s["targets"].remove(QUERY)),
        "head swapped": edit("classifier.weight", lambda t: t.flip(0)),
    },
    "average": {
        "averaged with other weights": other_share,
        "weights stated otherwise": ask(lambda recipe: recipe.update(weights=[0.25, 0.75])),
        "one tensor moved": edit(f"{DENSE}.weight", lambda t: t * (1 + 1e-5)),
        "one tensor not averaged": state(lambda s: s["averaged"].remove(f"{DENSE}.weight")),
    },
}
_PRUNED: Mapping[str, Mapping[str, Forge]] = {
    "prune": {
        "indices stated otherwise": state(other_indices),
        "more left out than claimed": ask(lambda recipe: recipe.update(heads=0.25)),
        "less left out than claimed": ask(lambda recipe: recipe.update(hidden=0.5)),
        "head swapped": edit("classifier.weight", lambda t: t.flip(0)),
        "head swapped and said to be new": head_said_to_be_new,
        "bias moved": edit(f"{DENSE}.bias", lambda t: t + 1e-6),
        "tensor left out and said to be tied": both(
            edit(f"{DENSE}.weight", lambda _: None),
            state(
                lambda s: s["tied"].append([f"{DENSE}.weight", f"{BLOCK}.1.output.dense.weight"])
            ),
        ),
    },
    "prune-blocks": {
        "other block named": ask(lambda recipe: recipe.update(blocks=[1])),
        "other block kept": state(
            lambda s: next(iter(s["cut"]["blocks"].values())).update(keep=[0])
        ),
    },
    "prune-channels": {
        "survivor moved": edit("*convolution.weight", nudged),
        "buffer moved": edit("*running_mean", lambda t: t + 1e-6),
        "indices stated otherwise": state(
            lambda s: s["keep"].update(
                {key: [*range(len(each))] for key, each in s["keep"].items()}
            )
        ),
        "inputs of a layer cut unlike the outputs before": other_inputs,
        "more left out than claimed": ask(lambda recipe: recipe.update(channels=0.25)),
    },
}
_SPARSE: Mapping[str, Mapping[str, Forge]] = {
    **{
        child: {
            "weight under the mask": edit(f"{DENSE}.weight", filled),
            "fewer zeros": edit(f"{DENSE}.weight", filled, state=True),
            "more zeros than asked for": edit(f"{DENSE}.weight", emptied, state=True),
            "tensor that is no target moved": edit("*embeddings.LayerNorm.weight", nudged),
        }
        for child in CHAINS
        if child.startswith("sparsify")
    },
}
_SPARSE = {
    **_SPARSE,
    "sparsify": {
        **_SPARSE["sparsify"],
        "other weights gone than the smallest": edit(f"{DENSE}.weight", other_mask),
    },
    "sparsify-sparsegpt": {
        **_SPARSE["sparsify-sparsegpt"],
        "weight of the first input moved": edit(
            f"{DENSE}.weight", lambda t: t.index_fill(1, t.new_zeros(1).long(), 0.5)
        ),
    },
}
_QUANTIZED: Mapping[str, Mapping[str, Forge]] = {
    "quantize-int8": {
        "code moved by one": edit(f"{QUERY}.weight", nudged),
        "another step": edit(f"{QUERY}.weight_scale", lambda t: t * (1 + 1e-6)),
        "twice the step, half the code": rescaled,
        "code of an embedding moved": edit("*word_embeddings.weight", nudged),
        "bias moved": edit(f"{QUERY}.bias", lambda t: t + 1e-6),
        "head swapped": edit("classifier.weight", lambda t: t.flip(0)),
        "layer left out of the record": state(lambda s: s["layers"].pop(QUERY)),
        "another scheme than asked for": ask(lambda recipe: recipe.update(scheme="int8-weight")),
    },
    "quantize-int4": {
        "code moved": edit(f"{QUERY}.weight_packed", lambda t: t ^ 1),
        "another step": edit(f"{QUERY}.weight_scale", lambda t: t * (1 + 1e-6)),
        "shape stated otherwise": edit(f"{QUERY}.weight_shape", lambda t: t + 1),
    },
    "quantize-gptq": {
        "codes of chance, allowed by the record": any_bound,
        "another step": edit(f"{QUERY}.weight_scale", lambda t: t * 1.01),
        "scale of chance": edit(f"{QUERY}.weight_scale", lambda t: t.flip(0)),
        "bound stated too low": state(lambda s: s["changes"].update({QUERY: 1e-6})),
    },
    "quantize-awq": {
        "code moved": edit(f"{QUERY}.weight_packed", lambda t: t ^ 1),
        "another step": edit(f"{QUERY}.weight_scale", lambda t: t * 1.01),
        "codes of chance, allowed by the record": any_bound,
        "factor stated otherwise": fold(
            lambda f: f["exponents"].insert(0, f["exponents"].pop(0) + 8)
        ),
        "rescaled layer of another block": fold(
            lambda f: f.update(source=other_block(f["source"]))
        ),
    },
    "quantize-smooth": {
        "factor stated otherwise": fold(
            lambda f: f["exponents"].insert(0, f["exponents"].pop(0) + 8)
        ),
        "norm moved": edit("*attention.output.LayerNorm.weight", nudged),
    },
    "quantize-bf16": {
        "cast to another type": edit(f"{QUERY}.weight", lambda t: t.half()),
        "not cast": edit(f"{QUERY}.weight", lambda t: t.float()),
        "value beside the nearest": edit(f"{QUERY}.weight", nudged),
    },
    "quantize-trained": {
        "codes off the grid": edit(f"{QUERY}.weight", lambda t: t.fill_(127)),
        "step that is none": edit(f"{QUERY}.weight_scale", lambda t: -t),
        "shape of another layer": edit(f"{QUERY}.weight", lambda t: t[:, :-1].contiguous()),
    },
}


def _forgeries() -> list[Forgery]:
    found = [
        Forgery(child, f"{what} moved by a millionth", edit(_kept(child), nudged))
        for child, what in MOVED
    ]
    for child in OF_ANOTHER:
        found.append(Forgery(child, "said to be of another parent of equal shape", reparent()))
        found.append(Forgery(child, "weights made of another parent", weights_of_twin))
    rows: Mapping[str, Mapping[str, Forge]] = {
        **_TRAINED,
        **_MERGED,
        **_PRUNED,
        **_SPARSE,
        **_QUANTIZED,
    }
    found += [
        Forgery(child, what, forge) for child, row in rows.items() for what, forge in row.items()
    ]
    return sorted(found, key=lambda each: (each.child, each.what))


FORGERIES: Sequence[Forgery] = _forgeries()
"""All of them, by child."""
