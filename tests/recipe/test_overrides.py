from __future__ import annotations

import pytest

from reuselib.errors import RecipeError
from reuselib.recipe import Recipe


def test_values_are_replaced_added_and_read_as_yaml(recipe_file):
    recipe = Recipe.read(
        recipe_file,
        overrides=[
            "seed=3",
            "steps[0].lora.r=2",
            "steps[0].lora.r=16",
            "steps[0].lora.fit.schedule.warmup_steps=1e-1",
            "steps[1].merge={}",
            "data.train=train[:10]",
            "task={text_classification: {labels: [no, yes]}}",
        ],
    )

    lora = recipe.steps[0]
    assert (recipe.seed, lora.r, lora.fit.epochs, lora.fit.schedule.warmup_steps) == (3, 16, 2, 0.1)
    assert recipe.task.labels == ("no", "yes")
    assert (recipe.data.source, recipe.data.train) == ("sample:senses", "train[:10]")


def test_a_bare_name_and_a_key_left_out_can_be_entered(recipe_file):
    recipe_file.write_text("base: {source: ./x}\nsteps: [finetune]\n")

    recipe = Recipe.read(
        recipe_file,
        overrides=[
            "steps[0].finetune.fit.epochs=7",
            "task.causal_lm.max_length=9",
            "data.source=sample:senses",
        ],
    )

    assert recipe.steps[0].fit.epochs == 7
    assert recipe.task.max_length == 9
    assert recipe.data is not None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed", "seed: expected `key=value`, such as `seed=3` or `steps[0].lora.r=4`"),
        ("steps.0.lora=1", "'steps.0.lora' is not the path of a field"),
        ("steps[2].lora.r=1", "there is no `steps[2]`: there are 2 items, counted from 0"),
        ("steps[0].lora.r.x=1", "`steps[0].lora.r` is not a mapping, so it has no `x`"),
        ("seed[0]=1", "`seed` is not a list"),
        ("seed={a: ", "seed={a: : a `{` or `[` is not closed"),
        ("seed=&a 1", "anchors and aliases are not allowed"),
        ("seed=three", "seed=three: seed: expected an integer; got 'three'"),
        ("sed=3", "sed=3: sed: unknown key; did you mean `seed`?"),
        ("steps[0].lora.r=", "steps[0].lora.r=: steps[0].lora.r: expected an integer; got nothing"),
    ],
)
def test_what_is_wrong_is_told_by_the_argument(recipe_file, argument, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.read(recipe_file, overrides=[argument])

    assert message in str(caught.value)


def test_all_malformed_arguments_are_told(recipe_file):
    with pytest.raises(RecipeError) as caught:
        Recipe.read(recipe_file, overrides=["a", "b", "seed=1"])

    assert len(caught.value.problems) == 2


def test_an_override_heals_a_problem_of_the_file(recipe_file):
    recipe_file.write_text(recipe_file.read_text() + "seed: 1\nseed: 2\n")

    assert Recipe.read(recipe_file, overrides=["seed=3"]).seed == 3
