from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reuselib import Data, FineTune, FitPlan, LoRA, ModelRef, TextClassification
from reuselib.errors import RecipeError
from reuselib.recipe import Recipe

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
TRICKY = st.sampled_from(
    ["no", "1e-4", "1_0", "null", "~", "2024-01-01", ": ", "- a", "0o7", "'", "\u2028", "on", ""]
)


@given(text=TEXT | TRICKY, rate=st.floats(1e-300, 1e300), seed=st.integers(0, 2**32 - 1))
def test_what_is_written_reads_back_equal(text, rate, seed):
    recipe = Recipe(
        base=ModelRef(text),
        task=TextClassification(text=text or "x", labels=("no", text + "y")),
        data=Data(source="sample:senses"),
        steps=(LoRA(fit=FitPlan(learning_rate=rate)), FineTune(train=("head",))),
        seed=seed,
    )

    assert Recipe.parse(recipe.to_yaml()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert yaml.safe_load(recipe.to_yaml()) == recipe.to_dict()  # any other parser sees the same


def test_every_default_is_written_out(recipe_file):
    written = Recipe.read(recipe_file).to_dict()

    assert written["seed"] == 0
    assert written["steps"][0]["lora"]["fit"]["optimizer"]["betas"] == [0.9, 0.999]
    assert list(written["steps"][1]) == ["merge"]


def test_a_written_file_can_be_read(recipe_file, tmp_path):
    recipe = Recipe.read(recipe_file)

    recipe.write(tmp_path / "full.yaml")

    assert Recipe.read(tmp_path / "full.yaml") == recipe


def test_what_only_python_can_say_is_refused(recipe_file):
    from torch import nn

    from reuselib import ModuleTask

    recipe = Recipe(
        base=ModelRef("./x"),
        task=ModuleTask(network=lambda: nn.Linear(1, 1), criterion=nn.functional.mse_loss),
        steps=(FineTune(),),
    )

    with pytest.raises(RecipeError, match=r"task: .* such a recipe can be run but not written"):
        recipe.to_yaml()
