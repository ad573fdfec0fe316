from __future__ import annotations

from pathlib import Path

import pytest

from reuselib import catalog
from reuselib.errors import RecipeError
from reuselib.recipe import Recipe

ROOT = Path(__file__).parents[2]


def told(path: Path | str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.read(path, overrides=overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/**/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_is_shipped_can_be_read(path):
    assert Recipe.read(path).steps


def test_all_problems_come_in_the_order_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(
        "base: ./x\n"
        "task: {text_classification: {txt: sentence, max_length: '128'}}\n"
        "model_name_or_path: x\n"
        "steps:\n"
        "  - lora:\n"
        "      lora_rank: 4\n"
        "      r: 8\n"
        "      r: 16\n"
        "      fit: {lr: 1e-4}\n"
        "    merge:\n"
        "  - lorra\n"
        "sed: 3\n"
    )

    assert told("r.yaml") == [
        "r.yaml:1: base: expected a mapping, such as `{source: ./x}`; got './x'",
        "r.yaml:2: task.text_classification.txt: unknown key; did you mean `text`? "
        "There are: text, pair, label, labels, problem, max_length",
        "r.yaml:2: task.text_classification.max_length: expected an integer; got '128'. Write `128`, without quotes",
        "r.yaml:3: model_name_or_path: unknown key; use `base.source`",
        "r.yaml:6: steps[0].lora.lora_rank: unknown key; use `r`",
        "r.yaml:8: steps[0].lora.r: `r` is given twice; the first is at r.yaml:7. Keep one",
        "r.yaml:9: steps[0].lora.fit.lr: unknown key; use `learning_rate`",
        "r.yaml:10: steps[0].merge: one adapter a step; start a new step: `- merge: ...`",
        "r.yaml:11: steps[1].lorra: no adapter is called 'lorra'; did you mean 'lora'? "
        f"There are: {', '.join(catalog.entries(catalog.ADAPTER_GROUP))}",
        "r.yaml:12: sed: unknown key; did you mean `seed`? There are: base, task, data, steps, gates, seed",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a mapping with the keys base, task, data, steps, gates and seed"),
        (b"# nothing\n", "is empty"),
        (b"- a\n- b\n", "holds a list of 2; expected a mapping"),
        (b"just text\n", "holds 'just text'; expected a mapping"),
        (b"base: \xff\n", "is not UTF-8 text (byte 6 is 0xff)"),
        (b"\xef\xbb\xbfseed: 1\n", "base: is missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_so(tmp_path, content, message):
    (tmp_path / "r.yaml").write_bytes(content)

    assert message in "\n".join(told(tmp_path / "r.yaml"))


def test_a_missing_file_is_told_with_the_nearest(recipe_file):
    assert told(recipe_file.with_name("recipes.yaml")) == [
        f"{recipe_file.with_name('recipes.yaml')}: there is no such file. Did you mean '{recipe_file}'?"
    ]


def test_a_folder_is_told_with_what_is_in_it(recipe_file):
    assert told(recipe_file.parent) == [
        f"{recipe_file.parent}: is a folder; a recipe is a YAML file. In '{recipe_file.parent}' there are: recipe.yaml"
    ]


def test_a_plug_in_is_known_and_its_errors_have_a_line(recipe_file, plugin):
    plugin(
        "acme_read",
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from reuselib import Adapter\n@dataclass(frozen=True)\nclass Scale(Adapter):\n    'Scale.'\n"
        "    kind: ClassVar[str] = 'scale'\n    factor: float = 1.0\n"
        "    def adapt(self, module, run): ...\n    def prove(self, parents, child, structure): ...\n",
        "[reuselib.adapters]\nscale = acme_read:Scale\n",
    )

    recipe = Recipe.read(recipe_file, overrides=["steps[1]={scale: {factor: 2}}"])

    assert recipe.steps[1].factor == 2.0
    assert (
        "steps[1].scale.factr: unknown key; did you mean `factor`?"
        in told(recipe_file, "steps[1]={scale: {factr: 2}}")[0]
    )
