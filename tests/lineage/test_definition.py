from __future__ import annotations

from dataclasses import fields, replace

import pytest

from lineage.folders import CHILD_ID
from reuselib.errors import IntegrityError
from reuselib.lineage.definition import Definition, Internal
from reuselib.lineage.descriptors import Descriptor, Parent
from reuselib.lineage.digest import Digests
from reuselib.lineage.reading import Fields


def reread(definition: Definition) -> Definition:
    predicate = {"buildDefinition": definition.to_json()}
    return Definition.parse(Fields(predicate, "", ("buildDefinition",), ""))


def test_everything_is_read_back(draft):
    assert reread(draft.definition) == draft.definition


def test_every_internal_parameter_is_read_back(draft):
    internal = Internal(
        derivation_id=CHILD_ID,
        form="adapter",
        structure={"kept": [0, 2]},
        rebuild=({"adapter": {"prune": {"ffn": 0.5}}, "structure": [1]},),
        requires=("ab" * 32,),
        fresh=("head.weight",),
        prefix="bert.",
        renamed={"encoder.query": "bert.layers.q_proj"},
        dropped=("bert.cls.weight",),
        dtype="bfloat16",
        device="cuda",
        world_size=4,
        determinism="none",
        facts={"gpu": "x"},
    )

    found = reread(replace(draft.definition, internal=internal)).internal

    assert found == internal
    defaults = Internal(derivation_id="")
    assert all(getattr(internal, f.name) != getattr(defaults, f.name) for f in fields(Internal))


def test_structure_keeps_its_json_type(draft):
    for structure in (None, [1, "a", None], {"kept": [0, 2]}, True, 3, "x"):
        internal = replace(draft.definition.internal, structure=structure)
        assert reread(replace(draft.definition, internal=internal)).internal == internal


def test_parents_carry_their_digests_and_that_of_their_manifest(draft, pinned):
    (parent,) = reread(draft.definition).parents

    assert parent.digests == pinned.digests
    assert parent.manifest_sha256 == pinned.sha256
    assert parent.role == "base"


def test_several_parents_keep_their_order_and_annotations(draft):
    parents = [
        Parent(
            f"m{i}", "merge-source", "", Digests(f"{i}a" * 32, "bc" * 32), "de" * 32, {"weight": i}
        )
        for i in (3, 1, 2)
    ]
    dependencies = tuple(item for parent in parents for item in parent.descriptors())
    definition = replace(draft.definition, dependencies=dependencies)

    assert reread(definition).parents == tuple(parents)
    assert definition.inputs == {"merge-source": ["m3", "m1", "m2"]}


def test_inputs_name_models_and_data_but_not_statements(draft):
    assert draft.definition.inputs == {"base": ["base"], "dataset": ["data"]}


def test_numbers_keep_their_type(draft):
    recipe = reread(draft.definition).recipe

    assert recipe["r"] == 8
    assert isinstance(recipe["r"], int)
    assert recipe["fit"] == {"learning_rate": 5e-4}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"relation": "cloned"}, "WRONG_TYPE"),
        ({"relation": "import"}, "BAD_MANIFEST"),
        ({"internal": None}, "BAD_MANIFEST"),
        ({"adapter": None}, "BAD_MANIFEST"),
        ({"seed": None}, "BAD_MANIFEST"),
        ({"dependencies": ()}, "BAD_MANIFEST"),
        ({"dependencies": (Descriptor(name="x", role="accomplice"),)}, "WRONG_TYPE"),
    ],
)
def test_contradictory_definition_is_refused(draft, change, code):
    with pytest.raises(IntegrityError) as caught:
        reread(replace(draft.definition, **change))

    assert caught.value.code == code


def test_parent_without_the_digest_of_its_manifest_is_refused(draft):
    model, _, rows = draft.definition.dependencies

    with pytest.raises(IntegrityError, match="every parent needs the digest of its manifest"):
        reread(replace(draft.definition, dependencies=(model, rows)))


def test_inputs_that_do_not_match_the_dependencies_are_refused(draft):
    written = draft.definition.to_json()
    written["externalParameters"]["inputs"] = {"base": ["other"]}

    with pytest.raises(IntegrityError, match="inputs"):
        Definition.parse(Fields({"buildDefinition": written}, "", ("buildDefinition",), ""))


@pytest.mark.parametrize("part", ["externalParameters", "internalParameters"])
def test_unknown_parameter_is_refused(draft, part):
    written = draft.definition.to_json()
    written[part]["more"] = 1

    with pytest.raises(IntegrityError) as caught:
        Definition.parse(Fields({"buildDefinition": written}, "", ("buildDefinition",), ""))

    assert caught.value.code == "UNKNOWN_FIELD"


def test_too_many_dependencies_are_refused(draft):
    many = tuple(Descriptor(name=str(i), role="code") for i in range(4097))

    with pytest.raises(IntegrityError, match="LIMIT"):
        reread(replace(draft.definition, dependencies=many))
