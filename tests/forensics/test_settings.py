from __future__ import annotations

from reuselib.adapter import as_json
from reuselib.adapters.lora import LoRA
from reuselib.forensics.settings import in_short, settings_that_matter
from reuselib.training.plan import FitPlan


def test_an_adapter_with_its_defaults_has_nothing_to_tell():
    recipe = as_json(LoRA())
    assert isinstance(recipe, dict)

    assert settings_that_matter("lora", recipe) == {}


def test_nested_fields_are_named_by_their_path_in_the_order_of_the_class():
    recipe = as_json(LoRA(fit=FitPlan(epochs=9), r=2))
    assert isinstance(recipe, dict)

    assert [*settings_that_matter("lora", recipe).items()] == [("r", 2), ("fit.epochs", 9)]


def test_of_an_unknown_adapter_everything_is_told():
    assert settings_that_matter("never-heard-of", {"a": 1, "b": {"c": 2}}) == {
        "a": 1,
        "b": {"c": 2},
    }


def test_settings_in_short():
    values = {"lr": 0.0005, "train": ["a", "b", "c", "d"], "name": "x" * 99, "on": True, "n": None}

    assert in_short(values, limit=3) == f"lr=0.0005, train=[a,b,c,...], name={'x' * 29}..., 2 more"
    assert in_short({"on": True, "n": None, "m": {"k": 1}}) == 'on=true, n=null, m={"k": 1}'
