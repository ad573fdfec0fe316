from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from reuselib.adapter import Adapted, Adapter, Finding, ModelRef, as_json
from reuselib.errors import IncompatibleStep


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ("a", "b")


@dataclass(frozen=True, kw_only=True)
class Scale(Adapter):
    """The least that an adapter has to say."""

    kind: ClassVar[str] = "scale"
    factor: int = 2
    inner: Inner = field(default_factory=Inner)
    models: tuple[ModelRef, ...] = ()

    def adapt(self, module, run):
        return Adapted(module)

    def prove(self, parents, child, structure):
        yield Finding("scaled", True)


def test_json_writes_out_every_default():
    assert as_json(Scale()) == {
        "factor": 2,
        "inner": {"rate": 0.5, "names": ["a", "b"]},
        "models": [],
    }


def test_json_keeps_the_types_of_scalars():
    values = {"a": None, "b": True, "c": 1, "d": 1.0, "e": "x"}

    written = as_json(values)

    assert written == values
    assert [type(each) for each in written.values()] == [type(each) for each in values.values()]


def test_json_makes_text_of_keys_and_lists_of_tuples():
    assert as_json({1: (1, [2, (3,)])}) == {"1": [1, [2, [3]]]}


@pytest.mark.parametrize("value", [len, {"a": object()}, [1j], {1, 2}, Inner])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        as_json(value)


def test_an_adapter_describes_itself_as_recipes_do():
    adapter = Scale(factor=3, models=(ModelRef("org/name", revision="main"),))

    described = adapter.describe()

    assert described["scale"]["factor"] == 3
    assert described["scale"]["models"] == [
        {"source": "org/name", "revision": "main", "digest": None, "trust_remote_code": False}
    ]
    assert list(described) == ["scale"]


def test_code_of_a_model_is_never_trusted_by_default():
    assert ModelRef("org/name").trust_remote_code is False


@pytest.mark.parametrize("value", [ModelRef("a"), Finding("a", True), Adapted(None)])  # type: ignore[arg-type]
def test_values_of_the_contract_are_frozen(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "b")


def test_findings_say_nothing_that_was_not_said():
    assert (Finding("a", None).detail, Finding("a", None).tensor) == ("", "")


def test_an_adapter_adapts_dense_models_and_leaves_them_dense():
    assert Scale().follow("dense") == "dense"


@pytest.mark.parametrize(("form", "fix"), [("adapter", "merge"), ("int8", "order")])
def test_another_form_is_refused_with_the_way_out(form, fix):
    with pytest.raises(IncompatibleStep, match=f"'scale'.*'{form}'") as caught:
        Scale().follow(form)

    assert fix in caught.value.fix


def test_rebuild_changes_nothing_unless_an_adapter_says_so():
    module = object()

    assert Scale().rebuild(module, {"any": 1}) is module  # type: ignore[arg-type]


def test_a_whole_adapter_has_nothing_to_save(tmp_path):
    assert Scale.whole
    assert Scale.relation == "finetune"
    for part in (Scale().save, Scale().load):
        with pytest.raises(NotImplementedError):
            part(None, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("lacking", ["adapt", "prove"])
def test_an_adapter_must_say_what_it_does_and_how_to_prove_it(lacking):
    methods = {"adapt": Scale.adapt, "prove": Scale.prove}
    del methods[lacking]
    partial = type("Partial", (Adapter,), {"kind": "partial", **methods})

    with pytest.raises(TypeError, match=lacking):
        partial()
