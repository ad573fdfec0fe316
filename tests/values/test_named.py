from __future__ import annotations

import pytest

from reuselib import catalog
from reuselib.adapter import ModelRef
from reuselib.errors import RecipeError
from reuselib.testing.bench import SETTINGS
from reuselib.values.named import families, parse_adapter, parse_task, parse_value


@pytest.mark.parametrize("adapter", SETTINGS.values(), ids=lambda each: each.kind)
def test_an_adapter_comes_back_from_what_it_describes(adapter):
    assert parse_adapter(adapter.describe()) == adapter


@pytest.mark.parametrize("kind", catalog.TASKS)
def test_a_task_comes_back_from_what_it_describes(kind):
    task = catalog.task(kind)()

    assert parse_task(task.describe()) == task


def test_a_value_of_any_dataclass_is_read():
    assert parse_value(ModelRef, {"source": "./x"}) == ModelRef("./x")


def test_what_does_not_fit_is_refused():
    with pytest.raises(RecipeError, match=r"lora\.rank: unknown key; use `r`"):
        parse_adapter({"lora": {"rank": 3}})


def test_an_adapter_that_is_brought_may_not_take_a_name_of_the_catalog():
    with pytest.raises(RecipeError, match="'lora' is in the catalog already"):
        families([catalog.adapter("lora")])
