"""Every translation must be true: its target exists."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest

from reuselib import catalog
from reuselib.recipe import Recipe
from reuselib.training.plan import FitPlan
from reuselib.values import hints
from reuselib.values.fields import field_types
from reuselib.values.wording import unknown_key

ROOTS = {"fit": FitPlan}


def resolves(target: str) -> bool:
    first, *rest = target.split(".")
    if first in catalog.ADAPTERS:
        cls: object = catalog.adapter(first)
    elif first in catalog.TASKS:
        cls = catalog.task(first)
    elif first in ROOTS:
        cls = ROOTS[first]
    else:
        cls, rest = Recipe, [first, *rest]
    for name in rest:
        if not is_dataclass(cls) or name not in {each.name for each in fields(cls)}:
            return False
        hint = field_types(cls)[name]
        options = [hint, *getattr(hint, "__args__", ())]
        cls = next((each for each in options if is_dataclass(each)), hint)
    return True


@pytest.mark.parametrize(
    "name", [n for n, (target, _) in hints.NAMES.items() if not target.startswith("--")]
)
def test_the_field_that_a_foreign_name_points_to_exists(name):
    assert resolves(hints.NAMES[name][0])


def test_a_target_that_does_not_exist_would_be_found():
    assert not resolves("lora.rank")
    assert not resolves("fit.optimizer.lr")


def test_options_that_foreign_names_point_to_exist():
    import inspect

    from reuselib.cli.run import run

    options = {target for target, _ in hints.NAMES.values() if target.startswith("--")}

    parameters = set(inspect.signature(run).parameters)

    assert {option.removeprefix("--") for option in options} <= parameters


@pytest.mark.parametrize("kind", sorted(set(hints.STEPS.values())))
def test_the_adapter_that_a_foreign_step_points_to_exists(kind):
    assert kind in catalog.ADAPTERS


def test_no_foreign_name_hides_one_of_ours():
    """A name that is a field of the very class it points to would never be translated."""
    for name, (target, _) in hints.NAMES.items():
        owner = target.rpartition(".")[0]
        assert not (owner and resolves(f"{owner}.{name}")), name


def test_there_are_many():
    assert len(hints.NAMES) + len(hints.NEEDLESS) + len(hints.STEPS) > 100
    assert not hints.NAMES.keys() & hints.NEEDLESS.keys()


@pytest.mark.parametrize(
    ("key", "path", "told"),
    [
        ("lora_rank", ("steps", 0, "lora"), "use `r`"),
        ("lora_rank", (), "use `lora.r`"),
        ("num_train_epochs", ("steps", 0, "lora"), "use `fit.epochs`"),
        ("num_train_epochs", ("steps", 0, "lora", "fit"), "use `epochs`"),
        ("warmup_ratio", ("steps", 0, "lora", "fit"), "use `schedule.warmup_steps` (a value below 1 is a share of all steps)"),
        ("output_dir", (), "not part of a recipe; use `reuselib run --output`"),
        ("do_train", (), "leave it out: the steps say what is done"),
    ],
)  # fmt: skip
def test_a_translation_is_written_as_it_must_be_there(key, path, told):
    assert hints.translate(key, path) == told
    assert unknown_key(key, FitPlan, path) == f"unknown key; {told}"


def test_a_name_that_nobody_uses_is_not_translated():
    assert hints.translate("flurb", ()) is None
