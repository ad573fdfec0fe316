"""Whatever a stranger records of a step, the proof ends in findings: no traceback, no hang, no memory for a lie."""

from __future__ import annotations

import copy
import random

import pytest

from reuselib.errors import IntegrityError
from reuselib.evidence.prove import claims
from reuselib.testing.honest import CHAINS

NUM_MUTANTS = 60
"""Of each child."""
LIES = (
    None,
    True,
    -1,
    0,
    2**53 - 1,
    -(2**53 - 1),
    1e300,
    0.5,
    "",
    "nothing",
    "9" * 40,
    [],
    [[]],
    [None],
    [-1],
    [2**53 - 1],
    ["bert.encoder.layer.0.output.dense"],
    {},
    {"nothing": 1},
    {"0": "0"},
)


def places(value, path=()):
    """Every place in a structure, itself included."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, each in items:
        yield from places(each, (*path, key))


def mutated(structure, draw):
    """The structure with a lie somewhere, or with something left out, doubled or renamed."""
    value = copy.deepcopy(structure)
    path = draw.choice(list(places(value)))
    if not path:
        return draw.choice(LIES)
    owner = value
    for key in path[:-1]:
        owner = owner[key]
    last, how = path[-1], draw.randrange(4)
    if how == 0:
        del owner[last]
    elif how == 1 and isinstance(owner, list):
        owner.insert(last, copy.deepcopy(owner[last]))
    elif how == 1:
        owner[f"{last}x"] = owner.pop(last)
    elif how == 2 and type(owner[last]) is int:
        owner[last] += draw.choice((-1, 1, 10**6))
    else:
        owner[last] = draw.choice(LIES)
    return value


@pytest.mark.xdist_group("structures")
@pytest.mark.parametrize("name", CHAINS)
def test_a_structure_with_a_lie_gives_findings_or_a_typed_error(honest, name):
    case = claims(honest.child(name), honest.store)
    draw = random.Random(name)
    refused, codes = 0, set()

    for _ in range(NUM_MUTANTS):
        structure = mutated(case.structure, draw)
        try:
            findings = list(case.adapter.prove(case.parents, case.child, structure))
        except IntegrityError as error:
            codes.add(error.code)
            refused += 1
        else:
            assert findings
            refused += any(finding.holds is False for finding in findings)

    assert codes <= {"BAD_STRUCTURE"}
    # some lies are none: an order that does not matter, a bound that is higher than need be
    assert refused > NUM_MUTANTS / 2
