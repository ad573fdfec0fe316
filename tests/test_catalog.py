from __future__ import annotations

import sys

import pytest

from reuselib import catalog
from reuselib.errors import RecipeError, ReuseError

BITFIT = """
from dataclasses import dataclass
from typing import ClassVar
from reuselib import Adapted, Adapter

@dataclass({frozen})
class BitFit(Adapter):
    "Train the bias terms and nothing else."
    kind: ClassVar[str] = "{kind}"
    scale: float = 1.0

    def adapt(self, module, run):
        return Adapted(module)

    def prove(self, parents, child, structure):
        return ()
"""


def code(kind: str = "bitfit", frozen: str = "frozen=True") -> str:
    return BITFIT.format(kind=kind, frozen=frozen)


def points(kind: str, target: str, group: str = "reuselib.adapters") -> str:
    return f"[{group}]\n{kind} = {target}\n"


@pytest.mark.parametrize("group", [catalog.ADAPTER_GROUP, catalog.TASK_GROUP])
def test_every_kind_of_ours_loads_and_says_its_own_name(group):
    find = catalog.adapter if group == catalog.ADAPTER_GROUP else catalog.task
    table = catalog.ADAPTERS if group == catalog.ADAPTER_GROUP else catalog.TASKS

    assert {kind: find(kind).kind for kind in table} == {kind: kind for kind in table}


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"no adapter is called 'lorra'; did you mean 'lora'\?"):
        catalog.adapter("lorra")


def test_another_package_brings_an_adapter(plugin):
    plugin("acme_a", code(), points("bitfit", "acme_a:BitFit"))

    assert catalog.adapter("bitfit").__name__ == "BitFit"
    assert catalog.entries(catalog.ADAPTER_GROUP)["bitfit"].origin == "acme_a 1.0"
    assert list(catalog.adapters()) == [*catalog.ADAPTERS, "bitfit"]


def test_listing_imports_no_plug_in(plugin):
    plugin("acme_b", "raise RuntimeError('imported')", points("bitfit", "acme_b:BitFit"))

    assert "bitfit" in catalog.entries(catalog.ADAPTER_GROUP)
    assert "acme_b" not in sys.modules


def test_a_broken_plug_in_is_named_when_it_is_used_and_harms_nobody_else(plugin):
    plugin("acme_c", "raise RuntimeError('no licence')", points("bitfit", "acme_c:BitFit"))

    assert list(catalog.adapters()) == list(catalog.ADAPTERS)
    with pytest.raises(ReuseError, match=r"(?s)acme_c 1\.0 cannot be imported.*no licence"):
        catalog.adapter("bitfit")


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (code(kind="other"), "says kind = 'other'"),
        (code(frozen="frozen=False"), "is not a frozen dataclass"),
        ("class BitFit: pass", "does not extend Adapter"),
        ("def BitFit(): pass", "does not extend Adapter"),
    ],
)
def test_a_class_that_does_not_keep_the_contract_is_refused(plugin, source, fault, request):
    name = f"acme_{abs(hash(request.node.name))}"
    plugin(name, source, points("bitfit", f"{name}:BitFit"))

    with pytest.raises(ReuseError, match=fault):
        catalog.adapter("bitfit")


def test_a_kind_that_is_claimed_twice_cannot_be_used(plugin):
    plugin("acme_d", code("lora"), points("lora", "acme_d:BitFit"))

    with pytest.raises(ReuseError, match=r"'lora' is claimed by reuselib and by acme_d 1\.0"):
        catalog.adapter("lora")
    assert catalog.adapter("merge").kind == "merge"
