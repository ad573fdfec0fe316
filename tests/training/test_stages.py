from __future__ import annotations

import pytest
from torch import nn
from toys import network

from reuselib.errors import TrainingError
from reuselib.training.plan import ParameterGroup
from reuselib.training.stages import Stages, still_normalisation


def test_parameters_open_one_after_another_and_end_as_they_began() -> None:
    module = network()
    module[0].bias.requires_grad_(False)
    stages = Stages(module, [ParameterGroup(("0.weight",), from_epoch=2)], 3)

    with stages.learning():
        sizes = [len(stages.enter(epoch)) for epoch in range(3)]

    assert sizes == [2, 2, 3]
    assert stages.last_opening == 2
    assert [name for name, part in module.named_parameters() if part.requires_grad] == [
        "0.weight",
        "2.weight",
        "2.bias",
    ]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([ParameterGroup(("0.weight",)), ParameterGroup(("0.weight",))], "two parameter groups"),
        ([ParameterGroup(("nothing",))], "not a parameter that learns"),
        (
            [ParameterGroup(("0.weight", "0.bias", "2.weight", "2.bias"), from_epoch=1)],
            "nothing learns in the first epoch",
        ),
    ],
)
def test_groups_that_make_no_sense_are_refused(groups: list[ParameterGroup], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Stages(network(), groups, 3)


def test_normalisation_without_parameters_goes_with_its_surroundings() -> None:
    bare = nn.BatchNorm1d(4, affine=False)
    moving = nn.Sequential(nn.Linear(4, 4), bare).train()
    still_normalisation(moving)
    assert bare.training

    moving.requires_grad_(False)
    still_normalisation(moving)
    assert not bare.training
