"""What was to be done: everything that decides a child's weights, SLSA's `buildDefinition`.

`externalParameters` are what the user asked for, `internalParameters` what the run settled,
`resolvedDependencies` what both refer to, by digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reuselib.lineage.descriptors import (
    PARENT_ROLES,
    ROLES,
    Descriptor,
    Parent,
    parse_descriptors,
    parse_identity,
)
from reuselib.lineage.digest import Digests
from reuselib.lineage.reading import Fields

if TYPE_CHECKING:
    from reuselib.adapter import Json

BUILD_TYPE = "urn:reuselib:derivation:v1"
RELATIONS = (
    "import",
    "finetune",
    "continue",
    "adapter",
    "merge",
    "prune",
    "quantize",
    "distill",
    "convert",
)
MAX_DEPENDENCIES = 4096
_NO_INPUTS = ("parent-statement", "environment", "code", "recipe", "tool")
_EXTERNAL = ("relation", "adapter", "recipe", "task", "data", "seed", "inputs")
_INTERNAL = (
    "derivationId",
    "form",
    "structure",
    "rebuild",
    "requires",
    "fresh",
    "prefix",
    "renamed",
    "dropped",
    "dtype",
    "device",
    "worldSize",
    "determinism",
    "facts",
)


@dataclass(frozen=True, kw_only=True)
class Internal:
    """What the run settled by itself, and what is needed to load the child again."""

    derivation_id: str
    """Digest of all inputs: the key in the store."""
    form: str = "dense"
    """What kind of weights the child has, such as `dense` or `adapter`."""
    structure: Json = None
    """What the adapter needs besides its configuration, to rebuild the network and to prove the child."""
    rebuild: tuple[Json, ...] = ()
    """Changes to the network that its own configuration cannot say, in the order to redo them before the weights are
    loaded: `{"adapter": {kind: fields}, "structure": ...}`."""
    requires: tuple[str, ...] = ()
    """`dirHash` of each model whose weights the child needs besides its own, the nearest first."""
    fresh: tuple[str, ...] = ()
    """Tensors that the parent did not have, such as those of a new head."""
    prefix: str = ""
    """What the child's tensor names have in front of the parent's."""
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    """The child's name by the parent's, of tensors whose names differ in more than the prefix."""
    dropped: tuple[str, ...] = ()
    """Tensors of the parent, with the prefix, that the child's network has no use for."""
    dtype: str = "float32"
    """In which the step worked."""
    device: str = "cpu"
    world_size: int = 1
    """Number of processes."""
    determinism: str = "strict"
    """Whether the same inputs must give the same weights again: `strict` or `none`."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """Anything else that was settled and may matter to whoever repeats it."""

    def to_json(self) -> dict[str, Json]:
        """As `internalParameters`."""
        return {
            "derivationId": self.derivation_id,
            "form": self.form,
            "structure": self.structure,
            "rebuild": list(self.rebuild),
            "requires": list(self.requires),
            "fresh": list(self.fresh),
            "prefix": self.prefix,
            "renamed": dict(self.renamed),
            "dropped": list(self.dropped),
            "dtype": self.dtype,
            "device": self.device,
            "worldSize": self.world_size,
            "determinism": self.determinism,
            "facts": dict(self.facts),
        }

    @classmethod
    def parse(cls, fields: Fields) -> Internal:
        """Read what `to_json` gave."""
        return cls(
            derivation_id=fields.get("derivationId", str),
            form=fields.get("form", str),
            structure=fields.json("structure"),
            rebuild=tuple(fields.get("rebuild", list)),
            requires=_names(fields, "requires"),
            fresh=_names(fields, "fresh"),
            prefix=fields.get("prefix", str),
            renamed=_renamed(fields),
            dropped=_names(fields, "dropped"),
            dtype=fields.get("dtype", str),
            device=fields.get("device", str),
            world_size=fields.get("worldSize", int),
            determinism=fields.get("determinism", str),
            facts=fields.get("facts", dict),
        )


def _renamed(fields: Fields) -> dict[str, str]:
    names = fields.get("renamed", dict)
    if not all(isinstance(item, str) for item in names.values()):
        raise fields.refuse("'renamed' must map names to names")
    return names


def _names(fields: Fields, name: str) -> tuple[str, ...]:
    names = fields.get(name, list)
    if not all(isinstance(item, str) for item in names):
        raise fields.refuse(f"'{name}' must list names")
    return tuple(names)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One derivation, complete enough to be done again."""

    relation: str
    """How the child relates to its parent, one of `RELATIONS`."""
    adapter: str | None = None
    """Kind of the adapter; `None` for an import."""
    recipe: Mapping[str, Json] = field(default_factory=dict)
    """The adapter's full configuration, defaults written out. Of an import: source and revision."""
    task: Mapping[str, Json] | None = None
    """`{kind: fields}`, as in a recipe."""
    data: Mapping[str, Json] | None = None
    """The fields of the data, as in a recipe; its content is among the dependencies."""
    seed: int | None = None
    internal: Internal | None = None
    dependencies: tuple[Descriptor, ...] = ()
    """Parents (see `Parent.descriptors`), data sets, code: by digest."""

    @property
    def inputs(self) -> dict[str, Json]:
        """Names of the dependencies that the derivation worked on, by role, in order."""
        inputs: dict[str, list[Json]] = {}
        for item in self.dependencies:
            if item.role not in _NO_INPUTS:
                inputs.setdefault(item.role, []).append(item.name)
        return dict(inputs)

    @property
    def parents(self) -> tuple[Parent, ...]:
        """The models among the dependencies, in order."""
        manifests = {
            item.annotations.get("of"): item.digest["sha256"]
            for item in self.dependencies
            if item.role == "parent-statement"
        }
        return tuple(
            Parent(
                name=item.name,
                role=item.role,
                uri=item.uri,
                digests=Digests(item.digest["dirHash"], item.digest["tensorHash1"]),
                manifest_sha256=manifests[item.name],
                annotations=item.annotations,
            )
            for item in self.dependencies
            if item.role in PARENT_ROLES
        )

    def to_json(self) -> dict[str, Json]:
        """As `buildDefinition`; what does not apply is left out."""
        external = {
            "relation": self.relation,
            "adapter": self.adapter,
            "recipe": dict(self.recipe),
            "task": self.task,
            "data": self.data,
            "seed": self.seed,
            "inputs": self.inputs or None,
        }
        written: dict[str, Json] = {
            "buildType": BUILD_TYPE,
            "externalParameters": {key: item for key, item in external.items() if item is not None},
        }
        if self.internal:
            written["internalParameters"] = self.internal.to_json()
        if self.dependencies:
            written["resolvedDependencies"] = [item.to_json() for item in self.dependencies]
        return written

    @classmethod
    def parse(cls, predicate: Fields) -> Definition:
        """Read what `to_json` gave."""
        fields = predicate.object(
            "buildDefinition",
            ("buildType", "externalParameters", "internalParameters", "resolvedDependencies"),
        )
        if fields.get("buildType", str) != BUILD_TYPE:
            raise fields.refuse(
                f"buildType is {fields.value['buildType']!r}, expected {BUILD_TYPE!r}", "WRONG_TYPE"
            )
        external = fields.object("externalParameters", _EXTERNAL)
        has_internal = "internalParameters" in fields.value
        definition = cls(
            relation=external.get("relation", str),
            adapter=external.optional("adapter", str),
            recipe=external.get("recipe", dict),
            task=external.optional("task", dict),
            data=external.optional("data", dict),
            seed=external.optional("seed", int),
            internal=Internal.parse(fields.object("internalParameters", _INTERNAL))
            if has_internal
            else None,
            dependencies=parse_descriptors(fields, "resolvedDependencies"),
        )
        definition._check(fields, external)
        return definition

    def _check(self, fields: Fields, external: Fields) -> None:
        """What must hold between the parts."""
        if len(self.dependencies) > MAX_DEPENDENCIES:
            raise fields.refuse(f"{len(self.dependencies)} dependencies", "LIMIT")
        if self.relation not in RELATIONS:
            raise external.refuse(
                f"relation {self.relation!r} is none of {', '.join(RELATIONS)}", "WRONG_TYPE"
            )
        if (self.relation == "import") != (self.internal is None):
            raise fields.refuse("internalParameters belong to a derivation, and only to that")
        if self.relation != "import" and (self.adapter is None or self.seed is None):
            raise external.refuse("a derivation needs an adapter and a seed")
        if external.find("inputs", dict, {}) != self.inputs:
            raise external.refuse("'inputs' does not name the dependencies as they are")
        self._check_dependencies(fields)

    def _check_dependencies(self, fields: Fields) -> None:
        of = [
            item.annotations.get("of")
            for item in self.dependencies
            if item.role == "parent-statement"
        ]
        models = [item for item in self.dependencies if item.role in PARENT_ROLES]
        for item in self.dependencies:
            if item.role not in ROLES:
                raise fields.refuse(
                    f"role {item.role!r} of {item.name!r} is not known", "WRONG_TYPE"
                )
            if item.role == "parent-statement" and "sha256" not in item.digest:
                raise fields.refuse(f"{item.name!r} has no sha256")
        for model in models:
            parse_identity(model.digest, fields)
        named = [each for each in of if isinstance(each, str)]
        if len(named) < len(of) or sorted(named) != sorted(model.name for model in models):
            raise fields.refuse("every parent needs the digest of its manifest, once")
        if self.relation != "import" and not models:
            raise fields.refuse("a derivation needs a parent")
