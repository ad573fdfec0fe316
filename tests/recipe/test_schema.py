from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

import reuselib
from reuselib.recipe import Recipe
from reuselib.recipe.schema import attribute_docs, schema
from reuselib.training.plan import FitPlan

ROOT = Path(__file__).parents[2]
COMMITTED = Path(reuselib.__file__).parent / "recipe" / "schema.json"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    made = schema(plugins=False)
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def test_the_committed_schema_is_current():
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == schema(plugins=False), (
        "run: make schema"
    )


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/**/*.yaml")), ids=lambda path: path.stem)
def test_recipes_fit_the_schema_as_shipped_and_written_out(validator, path):
    validator.validate(Recipe.read(path).to_dict())
    validator.validate(json.loads(json.dumps(_yaml_1_2(path))))


def _yaml_1_2(path: Path) -> object:
    """PyYAML reads `1e-3` as a string; editors, which use the schema, read YAML 1.2."""
    from reuselib.values.document import parse

    return parse(path.read_text(encoding="utf-8")).value


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "3"}, {"sed": 3}, {"steps": [{"lora": {"rank": 4}}]}, {"steps": [{"lorra": {}}]}, {"steps": ["lorra"]},
        {"steps": [{"lora": {}, "merge": {}}]}, {"steps": "lora"}, {"task": {"text_classification": {"problem": "x"}}},
        {"steps": [{"lora": {"fit": {"optimizer": {"betas": [0.9]}}}}]}, {"base": "x"}, {"base": {}},
    ],
)  # fmt: skip
def test_schema_and_reader_refuse_the_same(validator, recipe_file, change):
    good = yaml.safe_load(recipe_file.read_text().replace("1e-3", "0.001"))

    assert validator.is_valid(good)
    assert not validator.is_valid(good | change)
    with pytest.raises(reuselib.ReuseError):
        Recipe.from_dict(good | change)


def test_descriptions_are_the_docstrings_of_the_fields():
    described = schema(plugins=False)["$defs"]["FitPlan"]["properties"]

    assert described["batch_size"]["description"] == attribute_docs(FitPlan)["batch_size"]
    assert described["batch_size"]["description"].startswith("Rows per optimizer step")
    assert described["epochs"]["default"] == 3


def test_a_plug_in_appears_and_a_broken_one_does_not_harm(plugin):
    plugin(
        "acme_schema",
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom reuselib import Adapter\n"
        "@dataclass(frozen=True)\nclass Scale(Adapter):\n    'Scale the weights.'\n"
        "    kind: ClassVar[str] = 'scale'\n    factor: float = 1.0\n    'By how much.'\n"
        "    def adapt(self, module, run): ...\n    def prove(self, parents, child, structure): ...\n",
        "[reuselib.adapters]\nscale = acme_schema:Scale\nbroken = acme_schema:Nothing\n",
    )

    made = schema()["$defs"]

    assert made["scale"]["properties"]["factor"] == {
        "type": "number",
        "description": "By how much.",
        "default": 1.0,
    }
    assert "broken" not in made
    assert "scale" not in schema(plugins=False)["$defs"]
