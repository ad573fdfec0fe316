from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from reuselib import FineTune, LoRA, Merge, ModelRef, TextClassification
from reuselib.derivation.derive import derive
from reuselib.errors import RecipeError
from reuselib.recipe import Recipe


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(base=ModelRef("./x"), task=TextClassification(), steps=(LoRA(), Merge()))


def test_the_fields_are_the_parameters_of_derive():
    parameters = [name for name in inspect.signature(derive).parameters if name != "runtime"]

    assert {each.name for each in fields(Recipe)} == set(parameters)


def test_a_recipe_cannot_be_changed_but_varied(recipe):
    with pytest.raises(FrozenInstanceError):
        recipe.seed = 3
    assert replace(recipe, seed=3).seed == 3
    assert hash(recipe) != hash(replace(recipe, seed=3))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": ()}, "steps: is empty"),
        ({"steps": FineTune()}, "steps: expected a tuple of adapters"),
        ({"steps": [FineTune()]}, "steps: expected a tuple of adapters"),
        ({"base": "./x"}, "base: expected ModelRef; got str"),
        ({"task": "text_classification"}, "task: expected Task; got str"),
        ({"data": "./rows.csv"}, "data: expected Data or None; got str"),
        ({"seed": -1}, "seed: expected an integer from 0 to 4294967295; got -1"),
        ({"seed": True}, "seed: expected an integer"),
    ],
)
def test_values_from_python_are_checked_too(recipe, change, told):
    with pytest.raises(RecipeError, match=told):
        replace(recipe, **change)


def test_python_and_yaml_make_equal_recipes(recipe):
    text = "base: {source: ./x}\ntask: text_classification\nsteps: [lora, merge]\n"

    assert Recipe.parse(text) == recipe


def test_an_adapter_class_can_be_brought(recipe, plugin):
    import importlib

    plugin(
        "acme_brought",
        "from dataclasses import dataclass\nfrom reuselib import Adapted, Adapter\n"
        "@dataclass(frozen=True)\nclass Nothing(Adapter):\n    'Change nothing.'\n    kind = 'nothing'\n"
        "    def adapt(self, module, run):\n        return Adapted(module)\n"
        "    def prove(self, parents, child, structure):\n        return ()\n",
        "",
    )
    adapter = importlib.import_module("acme_brought").Nothing
    text = "base: {source: ./x}\ntask: text_classification\nsteps: [nothing]\n"

    assert Recipe.parse(text, adapters=[adapter]).steps == (adapter(),)
    with pytest.raises(RecipeError, match="no adapter is called 'nothing'"):
        Recipe.parse(text)
