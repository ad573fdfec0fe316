"""From a manifest back to the recipe that made a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reuselib.adapter import ModelRef
from reuselib.data import Data
from reuselib.errors import SourceError
from reuselib.recipe.recipe import Recipe
from reuselib.values.named import parse_adapter, parse_task, parse_value

if TYPE_CHECKING:
    from reuselib.lineage.descriptors import Parent
    from reuselib.lineage.manifest import Manifest


def recipe_of(manifest: Manifest, ancestors: Mapping[str, Manifest]) -> Recipe:
    """The recipe that made a model, pinned, with every default written out.

    Steps before this one belong to the same recipe as long as task, data and seed are the same.

    Args:
        manifest: of the model.
        ancestors: manifests by SHA-256, as `lineage.chain.walk` finds them.

    Raises:
        SourceError: the model is a base, or was made with rows or a task that only Python can say.
        RecipeError: the record names an adapter or a field that is unknown here.
    """
    definition = manifest.definition
    if definition.internal is None:
        raise SourceError(
            f"{manifest.name} is a base: no recipe made it", expected="a derived model"
        )
    if definition.task is None or (definition.data or {}).get("source") == "memory:":
        raise SourceError(
            f"{manifest.name} was made with rows or a task from Python, which a recipe cannot say",
            expected="data from a file, a hub or a sample",
        )
    steps, first = [], manifest
    while True:
        recorded = first.definition
        steps.insert(0, parse_adapter({str(recorded.adapter): dict(recorded.recipe)}))
        parent = first.parents[0]
        above = ancestors.get(parent.manifest_sha256)
        if above is None or above.definition.internal is None or not _one_run(first, above):
            break
        first = above
    return Recipe(
        base=_base(parent, above),
        task=parse_task(dict(definition.task)),
        data=parse_value(Data, dict(definition.data)) if definition.data else None,
        steps=tuple(steps),
        seed=definition.seed or 0,
    )


def _one_run(child: Manifest, parent: Manifest) -> bool:
    one, other = child.definition, parent.definition
    rows = [[d.digest for d in each.dependencies if d.role == "dataset"] for each in (one, other)]
    return (one.task, one.data, one.seed, rows[0]) == (other.task, other.data, other.seed, rows[1])


def _base(parent: Parent, manifest: Manifest | None) -> ModelRef:
    """What names the model that the first step began with."""
    uri, digest = parent.uri, parent.digests.dir_hash
    if uri.startswith("pkg:huggingface/"):
        source, _, commit = uri.removeprefix("pkg:huggingface/").partition("@")
        return ModelRef(source, revision=commit, digest=digest)
    if uri.startswith("pkg:pypi/"):
        return ModelRef(f"package:{uri.partition('#')[2]}", digest=digest)
    if uri.startswith("urn:reuselib:model:"):
        return ModelRef(f"store:{uri.removeprefix('urn:reuselib:model:')}", digest=digest)
    return ModelRef(
        uri if uri.startswith("module:") else f"./{uri.removeprefix('file:')}", digest=digest
    )
