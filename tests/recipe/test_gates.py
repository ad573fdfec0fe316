"""Gates in recipes: how they are written, and what is found wrong with them before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
import yaml

from reuselib import Gate
from reuselib.errors import RecipeError
from reuselib.recipe import Recipe
from reuselib.recipe.schema import schema

GATES = """\
gates:
  - accuracy: {max_drop: 0.02}
  - latency_p50: {max_ratio: 4e-1}
  - worst_class: {min: 0.8, max: 1}
"""


@pytest.fixture
def gated(recipe_file):
    recipe_file.write_text(recipe_file.read_text() + GATES)
    return recipe_file


def told(path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path, overrides=overrides)
    return [str(problem) for problem in caught.value.problems]


def test_the_key_is_the_figure_and_the_value_its_bounds(gated):
    assert Recipe.read(gated).gates == (
        Gate(figure="accuracy", max_drop=0.02),
        Gate(figure="latency_p50", max_ratio=0.4),
        Gate(figure="worst_class", min=0.8, max=1.0),
    )


def test_they_are_written_as_they_are_read(gated):
    recipe = Recipe.read(gated)

    written = recipe.to_dict()

    assert written["gates"] == yaml.safe_load(GATES.replace("4e-1", "0.4"))["gates"]
    assert Recipe.parse(recipe.to_yaml()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(written))) == recipe
    assert replace(recipe, gates=()).to_dict()["gates"] == []


def test_they_fit_the_schema_and_what_is_no_gate_does_not(gated):
    validator = jsonschema.Draft202012Validator(schema(plugins=False))
    good = Recipe.read(gated).to_dict()

    validator.validate(good)
    for bad in ({}, {"accuracy": 0.8}, {"accuracy": {"mn": 1}}, {"a": {}, "b": {}}, "accuracy"):
        assert not validator.is_valid({**good, "gates": [bad]})


def test_they_can_be_changed_from_the_command_line(gated):
    recipe = Recipe.read(
        gated, overrides=["gates[0].accuracy.max_drop=0.5", "gates[1]={loss: {max: 1}}"]
    )

    assert recipe.gates[:2] == (
        Gate(figure="accuracy", max_drop=0.5),
        Gate(figure="loss", max=1.0),
    )
    assert Recipe.read(gated, overrides=["gates=[]"]).gates == ()


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("acuracy: {min: 1}", "gates[3].acuracy: no such figure; did you mean `accuracy`?"),
        ("perplexity: {min: 1}", "gates[3].perplexity: no such figure"),
        ("accuracy: 0.8", "gates[3].accuracy: expected a mapping, such as `{min: 0.8}`; got 0.8"),
        ("accuracy: {}", "gates[3].accuracy: says no bound"),
        ("accuracy: {mn: 3}", "gates[3].accuracy.mn: unknown key; did you mean `min`?"),
        ("accuracy: {figure: 3}", "There are: min, max, max_drop, max_ratio"),
        ("accuracy: {min: '3'}", "gates[3].accuracy.min: expected a number; got '3'. Write `3`"),
        ("kl: {max_drop: 3}", "gates[3].kl: is no figure that the origin has as well"),
        ("{accuracy: {min: 1}, loss: {max: 1}}", "Begin a new item of the list for each"),
        ("accuracy", "gates[3]: expected one figure with its fields"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_key(gated, gate, message):
    gated.write_text(f"{gated.read_text()}  - {gate}\n")

    [problem] = told(gated)

    assert message in problem
    assert problem.startswith(f"{gated}:{len(gated.read_text().splitlines())}: ")


def test_a_problem_of_an_override_is_told_with_it(gated):
    [problem] = told(gated, "gates[1]={acuracy: {min: 1}}")

    assert problem.startswith("gates[1]={acuracy: {min: 1}}: gates[1].acuracy: no such figure")


def test_without_data_there_is_nothing_to_measure(gated):
    assert ["is measured on test rows" in each for each in told(gated, "data=null")] == [True] * 3


def test_names_of_other_tools_get_a_hint(recipe_file):
    recipe_file.write_text(recipe_file.read_text() + "thresholds: {accuracy: 0.8}\n")

    [problem] = told(recipe_file)

    assert "use `gates`" in problem


def test_from_python_they_are_a_tuple_of_gates(recipe_file):
    recipe = Recipe.read(recipe_file)

    with pytest.raises(RecipeError, match="expected a tuple of gates"):
        replace(recipe, gates=[Gate(figure="accuracy", min=1)])
    with pytest.raises(RecipeError, match="no such figure"):
        replace(recipe, gates=(Gate(figure="x", min=1),))
