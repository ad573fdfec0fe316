"""The pages keep what they promise: their code runs, their recipes are real, their tables and links are current."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import reuselib
from reuselib import catalog
from reuselib.adapter import Adapter, ModelRef
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.calibration.plan import Calibration
from reuselib.cli import main
from reuselib.data import Data
from reuselib.derivation.derive import Runtime
from reuselib.errors import IntegrityError
from reuselib.lineage.verify import verify
from reuselib.recipe import Recipe
from reuselib.testing.tiny import tiny_bert, tiny_llama, tiny_rows, tiny_vit

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))
REAL = ("README.md", "docs/tutorial.md")
"""Pages that use the packaged real model; they run after the quickstart, and find its children in the store."""

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<language>\w*)(?: title=\"(?P<title>[\w.]+)\")?\n"
    r"(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
GAIN = 0.09
"""What the quickstart must gain over the linear model."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """One fenced block. A block with a title is a file; the others are run one after the other."""

    language: str
    title: str
    code: str
    line: int
    why_not_run: str


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match["language"] in languages:
            line = text.count("\n", 0, match.start("code")) + 1
            yield Block(
                match["language"], match["title"] or "", match["code"], line, match["why"] or ""
            )


def is_recipe(block: Block) -> bool:
    return block.language == "yaml" and re.search(r"^steps:", block.code, re.MULTILINE) is not None


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Every command line in a `bash` block of any page."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.code.splitlines():
                for part in line.split("&&"):
                    yield page, shlex.split(part, comments=True)


def play(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a page from top to bottom in a folder of its own; the blocks share their names."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    names: dict[str, Any] = {"__name__": f"page_{page.stem.replace('-', '_')}"}
    for block in blocks(page, "python", "toml", "yaml"):
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
        elif is_recipe(block):
            Recipe.parse(block.code, adapters=titled_adapters(folder))
        elif block.language == "python" and not block.why_not_run:
            # as many empty lines before it as the page has, so that a traceback shows the page's line
            code = compile(
                "\n" * (block.line - 1) + block.code, name(page), "exec", dont_inherit=True
            )
            exec(code, names)
    return names


def titled_adapters(folder: Path) -> list[type[Adapter]]:
    """The adapters that a page's own files define."""
    found: list[type[Adapter]] = []
    for path in folder.glob("acme_*.py"):
        module = __import__(path.stem)
        found += [
            each
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, Adapter) and each.__module__ == path.stem
        ]
    return found


# Code.


@pytest.mark.parametrize(
    "page", [p for p in PAGES if name(p) not in REAL and [*blocks(p, "python", "yaml")]], ids=name
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    play(page, tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_quickstart_gains_what_it_promises_and_the_pages_that_use_it_run(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shown = [f"{ROOT / 'recipes/quickstart.yaml'}", "--output", "quickstart-model"]

    assert main(["run", *shown, "--json"]) == 0

    last = json.loads(capsys.readouterr().out)["steps"][-1]["figures"]
    assert last["after"]["accuracy"] - last["reference"]["accuracy"] >= GAIN
    assert main(["run", *shown]) == 0
    assert "nothing was computed" in capsys.readouterr().out
    readme = play(ROOT / "README.md", tmp_path, monkeypatch)
    made = verify(tmp_path / "quickstart-model").manifest
    assert made is not None
    assert readme["model"].manifest == made, (
        "the README's Python names another child than the quickstart"
    )
    play(ROOT / "docs/tutorial.md", tmp_path, monkeypatch)


def test_blocks_that_are_not_run_say_why():
    assert all(
        block.why_not_run.strip() or not block.why_not_run
        for p in PAGES
        for block in blocks(p, "python")
    )


def test_every_fence_is_closed_and_has_a_known_language():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len([*FENCE.finditer(text)]), (
            name(page)
        )
        assert {match["language"] for match in FENCE.finditer(text)} <= {
            "",
            "bash",
            "python",
            "toml",
            "yaml",
        }


# The page on adapters is a package.


def test_the_adapter_of_the_page_is_short_and_complete(tmp_path, plugin, capsys):
    files = {
        b.title: b.code
        for b in blocks(ROOT / "docs/how-to/write-an-adapter.md", "python", "toml")
        if b.title
    }
    points = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["reuselib.adapters"]
    lines = [line for code in files.values() for line in code.splitlines() if line.strip()]

    plugin(
        "acme_bitfit",
        files["acme_bitfit.py"],
        f"[reuselib.adapters]\nbitfit = {points['bitfit']}\n",
    )

    assert len(lines) < 40
    assert main(["show", "bitfit"]) == 0
    assert "How to train." in capsys.readouterr().out
    assert main(["adapters"]) == 0
    assert "acme_bitfit 1.0" in capsys.readouterr().out
    assert main(["schema"]) == 0
    assert "bitfit" in json.loads(capsys.readouterr().out)["$defs"]


# Recipes.


def tiny_world(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe on a tiny base and tiny rows that have the columns its task asks for."""
    if recipe.task.kind == "causal_lm":
        base = tiny_llama(folder / "base", num_layers=6)
    elif recipe.task.kind == "text_classification":
        base = tiny_bert(folder / "base", num_layers=6)
    else:
        base = tiny_vit(folder / "base", num_labels=10)
        few = Data(source="sample:digits", train="train[:128]", test="test[:32]")
        return replace(recipe, base=ModelRef(str(base)), data=few, gates=())
    columns = {"text": recipe.task.text, "label": getattr(recipe.task, "label", "label")}  # type: ignore[attr-defined]
    (folder / "rows").mkdir()
    for split, seed in (("train", 0), ("test", 1)):
        rows = [
            {columns[key]: value for key, value in row.items()} for row in tiny_rows(32, seed=seed)
        ]
        (folder / "rows" / f"{split}.jsonl").write_text(
            "".join(f"{json.dumps(row)}\n" for row in rows)
        )
    data = Data(source=str(folder / "rows"))
    # what a recipe asks of its own model on its own rows, a toy need not reach
    steps = tuple(fitted(step) for step in recipe.steps)
    return replace(recipe, base=ModelRef(str(base)), data=data, steps=steps, gates=())


def fitted(step: Adapter) -> Adapter:
    """A step whose sizes fit a network of 32 channels and a file of 32 rows."""
    few = Calibration(num_rows=32)
    if isinstance(step, Quantize) and step.group_size is not None:
        return replace(step, group_size=16, calibration=few)
    if isinstance(step, Prune) and step.importance == "taylor":
        return replace(step, calibration=few)
    return step


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_every_recipe_runs_on_tiny_inputs(path, tmp_path):
    recipe = Recipe.read(path)

    model = tiny_world(recipe, tmp_path).run(Runtime(output=tmp_path / "child"))

    assert verify(tmp_path / "child").ok
    assert model.manifest.definition.adapter == recipe.steps[-1].kind


def test_the_quickstart_on_the_pages_is_the_one_that_is_shipped():
    shipped = Recipe.read(ROOT / "recipes/quickstart.yaml")

    for page in (ROOT / "README.md", ROOT / "docs/tutorial.md"):
        first = next(block for block in blocks(page, "yaml") if is_recipe(block))
        assert Recipe.parse(first.code) == shipped, name(page)


# Completeness.


def test_generated_tables_are_current():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_is_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

    assert not [public for public in reuselib.__all__ if not re.search(rf"\b{public}\b", text)]


def test_every_adapter_has_a_card_with_the_same_headings():
    for kind in catalog.ADAPTERS:
        text = (ROOT / f"docs/adapters/{kind}.md").read_text(encoding="utf-8")
        assert f"<!-- generated: fields {kind} -->" in text
        assert re.findall(r"^## (.+)$", text, re.MULTILINE)[:3] == [
            "Recipe",
            "What rebuild restores",
            "What prove checks",
        ]
        assert all(f"**{what}**" in text for what in ("When.", "Cost.", "What it changes."))


def test_every_code_of_an_integrity_error_is_explained():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    raised = set(
        re.findall(
            r'"([A-Z]+(?:_[A-Z]+)+|LIMIT|TRUNCATED|UNREADABLE|UNSIGNED|STALE|CONFLICT)"', source
        )
    )
    codes = {
        code
        for code in raised
        if not code.startswith(("REUSELIB", "XDG", "HF_", "OMP", "GLOO", "ACCELERATE"))
    }
    page = (ROOT / "docs/explanation/lineage.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))

    assert IntegrityError("LIMIT", "").exit_code == 5
    assert explained <= raised
    assert {"DIGEST_MISMATCH", "UNSAFE_FORMAT", "WEAK_DIGEST"} <= codes & explained
    assert not {
        code
        for code in codes - explained
        if f'IntegrityError("{code}"' in re.sub(r"\(\s+", "(", source)
    }


def test_every_key_of_the_manifest_is_explained():
    from reuselib.lineage import definition, descriptors

    page = (ROOT / "docs/explanation/lineage.md").read_text(encoding="utf-8")
    keys = (*definition._EXTERNAL, *definition._INTERNAL, *definition.RELATIONS, *descriptors.ROLES)

    assert not [key for key in keys if f"`{key}`" not in page]


def test_every_room_is_in_the_tree_of_the_readme():
    tree = next(
        match["code"]
        for match in FENCE.finditer((ROOT / "README.md").read_text())
        if "src/reuselib/" in match["code"]
    )
    source = ROOT / "src" / "reuselib"
    rooms = {path.parent.name for path in source.glob("*/__init__.py")}
    files = {path.name for path in source.glob("*.py")} - {"__init__.py", "__main__.py"}

    assert not {room for room in rooms if f"{room}/" not in tree}
    assert not {file for file in files if file not in tree}


# Commands and links.


def test_every_make_target_on_a_page_exists():
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = {words[1] for _, words in commands() if words[:1] == ["make"]}
    named |= {
        target
        for page in PAGES
        for target in re.findall(r"`make (\w+)`", page.read_text(encoding="utf-8"))
    }

    assert {"quickstart", "test"} <= named <= targets


def test_every_verb_and_option_on_a_page_exists():
    import typer

    from reuselib.cli import all_verbs

    verbs = typer.main.get_command(all_verbs()).commands  # type: ignore[attr-defined]
    written = [words[1:] for _, words in commands() if words[:1] == ["reuselib"]]
    for page in PAGES:
        spans = re.findall(r"`reuselib ([^`]+)`", page.read_text(encoding="utf-8"))
        written += [span.split() for span in spans if not span.startswith("VERB")]

    assert {words[0] for words in written} == set(verbs)
    for verb, *rest in written:
        options = {option for each in verbs[verb].params for option in each.opts}
        assert {word for word in rest if word.startswith("--")} <= options, (verb, rest)


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_reached_from_the_readme(page):
    seen, left = set(), [ROOT / "README.md"]
    while left:
        at = left.pop()
        if at in seen or at.suffix != ".md":
            continue
        seen.add(at)
        links = re.findall(r"\]\(([^)#\s]+)", at.read_text(encoding="utf-8"))
        left += [(at.parent / link).resolve() for link in links if not link.startswith("http")]

    assert page in seen
