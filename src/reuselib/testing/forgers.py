"""What forgers do to a copy of an honest child.

Each keeps the record consistent, as somebody would who has the folder and no key: all digests fit again, and
where a lie can be told in the record too, it is. Only the parents' weights can find it out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.adapter import ModelRef
from reuselib.lineage.chain import ANCESTORS, read_ancestors, walk
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.model.source import resolve
from reuselib.testing.forging import part, restate, retouch
from reuselib.testing.honest import CHAINS, Honest

if TYPE_CHECKING:
    from torch import Tensor


Forge = Callable[[Path, Honest], None]
"""Changes a copy of an honest child."""

BLOCK = "bert.encoder.layer"
QUERY = f"{BLOCK}.0.attention.self.query"
DENSE = f"{BLOCK}.0.output.dense"
UPDATE = f"base_model.model.{QUERY}.lora_"
MORE = "base_model.model.bert.more"


def edit(pattern: str, change: Callable[[Tensor], Tensor | None], *, state: bool = False) -> Forge:
    """Change the first tensor of that pattern; `state`: and how many zeros are recorded of it."""

    def forge(folder: Path, _: Honest) -> None:
        name = find(folder, pattern)
        value = change(Tensors(folder)[name].clone())
        retouch(folder, {name: value})
        if state and value is not None:
            zeros = int((value == 0).sum())
            restate(folder, lambda s: structure(s)["zeros"].update({name: zeros}))

    return forge


def find(folder: Path, pattern: str) -> str:
    """The first tensor whose name is of a pattern."""
    return next(name for name in sorted(Tensors(folder)) if fnmatchcase(name, pattern))


def swap(one: str, other: str) -> Forge:
    """Two tensors change places."""

    def forge(folder: Path, _: Honest) -> None:
        tensors = Tensors(folder)
        first, second = find(folder, one), find(folder, other)
        retouch(folder, {first: tensors[second].clone(), second: tensors[first].clone()})

    return forge


def state(change: Callable[[dict[str, Any]], object]) -> Forge:
    """Change the recorded structure only."""
    return lambda folder, _: ignored(restate(folder, lambda s: ignored(change(structure(s)))))


def ask(change: Callable[[dict[str, Any]], object]) -> Forge:
    """Change the recorded configuration only."""

    def forge(folder: Path, _: Honest) -> None:
        restate(folder, lambda s: ignored(change(part(s, "externalParameters")["recipe"])))

    return forge


def structure(statement: dict[str, Any]) -> dict[str, Any]:
    """What the adapter recorded."""
    return part(statement, "internalParameters")["structure"]


def both(*forgers: Forge) -> Forge:
    """One after another."""

    def forge(folder: Path, honest: Honest) -> None:
        for each in forgers:
            each(folder, honest)

    return forge


def reparent(which: int = 0) -> Forge:
    """Say that the child was made of the other model, which is at hand; recipe and parents agree on it."""

    def forge(folder: Path, honest: Honest) -> None:
        store = Store(honest.store)
        parent = Manifest.read(folder).parents[which]
        twin = Manifest.read(honest.twin(named(folder, honest))).parents[which]
        place = store.locate(twin.digests.dir_hash)
        assert place is not None
        other = resolve(ModelRef(str(place)), store)
        for sha, data in other.history.items():
            (folder / ANCESTORS / f"{sha}.json").write_bytes(data)

        def change(statement: dict[str, Any]) -> None:
            text = json.dumps(statement)
            for old, new in (
                (parent.digests.dir_hash, other.manifest.digests.dir_hash),
                (parent.digests.tensor_hash, other.manifest.digests.tensor_hash),
                (parent.manifest_sha256, other.manifest.sha256),
            ):
                text = text.replace(old, new)
            statement.update(json.loads(text))

        manifest = restate(folder, change)
        reached = walk(manifest, read_ancestors(folder)).manifests
        for path in (folder / ANCESTORS).glob("*.json"):
            if path.stem not in reached:
                path.unlink()

    return forge


def named(folder: Path, honest: Honest) -> str:
    """Which honest child a copy is of."""
    made = Manifest.read(folder).derivation_id
    return next(name for name in CHAINS if Manifest.read(honest.child(name)).derivation_id == made)


def weights_of_twin(folder: Path, honest: Honest) -> None:
    """Put in the weights that the same step made of the other model, with what it recorded of them."""
    twin = honest.twin(named(folder, honest))
    for path in twin.glob("*.safetensors"):
        shutil.copy(path, folder / path.name)
    recorded = Manifest.read(twin).definition.internal
    assert recorded is not None
    restate(folder, lambda s: part(s, "internalParameters").update(structure=recorded.structure))


def ignored(_: object) -> None:
    """For what is done for its effect."""


def other_share(folder: Path, honest: Honest) -> None:
    """The average with other weights than the recipe's."""
    one, other = Tensors(honest.base), Tensors(honest.other)
    retouch(folder, {name: 0.7 * one[name] + 0.3 * other[name] for name in Tensors(folder)})


def as_the_parent(folder: Path, honest: Honest) -> None:
    """Nothing was done at all."""
    parent = Manifest.read(folder).parents[0].digests.dir_hash
    place = Store(honest.store).locate(parent)
    assert place is not None
    tensors = Tensors(place)
    retouch(folder, {name: tensors[name].clone() for name in Tensors(folder)})


def other_inputs(folder: Path, honest: Honest) -> None:
    """One layer keeps other channels of its inputs than the layer before of its outputs, and the record says so."""
    import torch

    parent, manifest = Tensors(honest.images), Manifest.read(folder)
    assert manifest.definition.internal is not None
    recorded: Any = manifest.definition.internal.structure
    name = next(
        each
        for each in sorted(recorded["tensors"])
        if set(recorded["tensors"][each]) == {"0", "1"} and parent[each].dim() == 4
    )
    dims = recorded["tensors"][name]
    kept = recorded["keep"][dims["1"]]
    gone = next(at for at in range(parent[name].shape[1]) if at not in kept)
    moved = sorted([*kept[1:], gone])
    value = parent[name].index_select(0, torch.tensor(recorded["keep"][dims["0"]]))
    retouch(folder, {name: value.index_select(1, torch.tensor(moved))})

    def change(record: dict[str, Any]) -> None:
        record["keep"]["forged"] = moved
        record["tensors"][name]["1"] = "forged"

    restate(folder, lambda s: change(structure(s)))


def other_indices(record: dict[str, Any]) -> None:
    """The first axis of a cut keeps others than it did."""
    axis = next(iter(record["cut"]["axes"].values()))
    gone = next(at for at in range(axis["size"]) if at not in axis["keep"])
    axis["keep"] = sorted([*axis["keep"][1:], gone])


def fold(change: Callable[[dict[str, Any]], object]) -> Forge:
    """Change the first record of a rescaled layer."""
    return state(lambda record: change(record["factored"][0]))


def rescaled(folder: Path, _: Honest) -> None:
    """Half the step, twice the code, where the codes have room."""
    name = f"{QUERY}.weight"
    tensors = Tensors(folder)
    codes = (tensors[name].int() // 2).to(tensors[name].dtype)
    retouch(folder, {name: codes, f"{name}_scale": tensors[f"{name}_scale"] * 2})


def any_bound(folder: Path, _: Honest) -> None:
    """Codes of chance, with a bound in the record that allows them."""
    name = f"{QUERY}.weight_packed"
    retouch(folder, {name: Tensors(folder)[name].flip(0).flip(1).contiguous()})
    restate(folder, lambda s: structure(s)["changes"].update({QUERY: 10.0}))


def head_said_to_be_new(folder: Path, _: Honest) -> None:
    """Another head, recorded as if the parent had had none."""
    names = ["classifier.bias", "classifier.weight"]
    retouch(folder, {"classifier.weight": Tensors(folder)["classifier.weight"].flip(0)})

    def change(statement: dict[str, Any]) -> None:
        part(statement, "internalParameters").update(fresh=names, dropped=names)
        structure(statement).update(new=names)

    restate(folder, change)


def teacher_replaced(folder: Path, honest: Honest) -> None:
    """The recipe names another teacher than the one that is bound as a parent."""
    digest = Manifest.read(honest.child("finetune")).digests.dir_hash
    ask(lambda recipe: recipe["teachers"][0].update(digest=digest))(folder, honest)


def put(tensors: Callable[[Tensors, Honest], Mapping[str, Tensor]]) -> Forge:
    """Replace or add tensors, made of the child's."""

    def forge(folder: Path, honest: Honest) -> None:
        retouch(folder, tensors(Tensors(folder), honest))

    return forge


def base_tensor(_: Tensors, honest: Honest) -> Mapping[str, Tensor]:
    """A weight of the base, changed, under the name that peft gives it."""
    return {f"base_model.model.{DENSE}.weight": Tensors(honest.base)[f"{DENSE}.weight"] * 2}


def other_block(name: str) -> str:
    """The same layer in the other of two blocks."""
    here, there = ("0", "1") if f"{BLOCK}.0" in name else ("1", "0")
    return name.replace(f"{BLOCK}.{here}", f"{BLOCK}.{there}")
