"""What may import what, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reuselib

SOURCE = Path(reuselib.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

LEVELS = (
    ("__main__", "cli", "testing"),
    ("evidence", "deploy"),
    ("recipe",),
    ("derivation",),
    ("exchange",),
    ("model",),
    ("adapters", "tasks"),
    ("training", "measure", "network", "calibration", "pruning", "quantization", "forensics"),
    ("lineage", "signing", "scanning"),
    ("values",),
    ("data", "catalog"),
    ("adapter", "task", "progress"),
    ("errors", "places"),
)
"""Rooms from the top down; a file imports from its own level or from further down."""

PLANS = ("reuselib.training.plan", "reuselib.training.lessons", "reuselib.calibration.plan")
"""Values only, so that everyone may hold them."""

OWNERS = {
    "peft": {"adapters/lora.py", "adapters/merge.py"},
    "accelerate": {"training"},
    "torch_pruning": {"pruning"},
    "torchao": {"quantization"},
    "datasets": {"data"},
    "transformers": {"tasks", "model", "testing"},
    "yaml": {"values", "recipe"},
    "typer": {"cli"},
    "rich": {"cli"},
    "rfc8785": {"lineage"},
    "sklearn": {"tasks", "data"},
    "textblob": {"data"},
    "model_signing": {"signing"},
    "cryptography": {"signing"},
    "cyclonedx": {"exchange"},
    "picklescan": {"scanning"},
    "huggingface_hub": {"data", "model"},
}
"""The one place for each backend: what to change when it changes."""

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "numpy",
    "pandas",
    "yaml",
    "rich",
    "typer",
)


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def level(room: str) -> int:
    return next(index for index, rooms in enumerate(LEVELS) if room in rooms)


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere when it runs: what is for type checkers only does not count."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from (each.name for each in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name(path)}: relative import"
                yield child.module or ""
                yield from (f"{child.module}.{each.name}" for each in child.names)
            yield from walk(child)

    return walk(ast.parse(path.read_text(encoding="utf-8")))


def ours(path: Path) -> Iterator[str]:
    rooms = {room(each) for each in FILES}
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "reuselib" and rooms & set(parts[1:2]) and not module.startswith(PLANS):
            yield module


@pytest.mark.parametrize("path", [f for f in FILES if name(f) != "__init__.py"], ids=name)
def test_a_file_imports_from_rooms_further_down_only(path):
    upward = {each for each in ours(path) if level(each.split(".")[1]) < level(room(path))}

    assert not upward


@pytest.mark.parametrize("path", [f for f in FILES if room(f) in ("adapters", "tasks")], ids=name)
def test_adapters_and_tasks_do_not_know_one_another(path):
    """A room's shared parts may be used; its adapters, or tasks, may not."""
    from reuselib import catalog

    kinds = {
        target.partition(":")[0] for target in (*catalog.ADAPTERS.values(), *catalog.TASKS.values())
    }
    own = f"reuselib.{name(path).removesuffix('.py').replace('/', '.')}"

    assert not {each for each in ours(path) if each in kinds - {own}}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_each_backend_has_one_owner(path):
    used = {module.split(".")[0] for module in imports(path)}

    strangers = {
        backend
        for backend in used & OWNERS.keys()
        if not {room(path), name(path)} & OWNERS[backend]
    }

    assert not strangers


def test_the_contract_needs_the_standard_library_only():
    for contract in ("adapter", "task", "errors", "progress", "catalog"):
        used = {module.split(".")[0] for module in imports(SOURCE / f"{contract}.py")}

        assert used <= sys.stdlib_module_names | {"reuselib"}, contract


def fresh(code: str) -> str:
    """Output of code in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import reuselib",
        "import reuselib; [reuselib.LoRA(), reuselib.FineTune(), reuselib.Merge(), reuselib.TextClassification()]",
        "from reuselib import catalog; catalog.adapters(), catalog.tasks()",
        "from reuselib.recipe import Recipe",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    loaded = fresh(f"import sys; {code}; print(*[each for each in {HEAVY} if each in sys.modules])")

    assert loaded.strip() == ""


def test_reading_a_recipe_needs_no_network_library(recipe_file):
    code = f"import sys; from reuselib import Recipe; Recipe.read({str(recipe_file)!r})"

    loaded = fresh(f"{code}; print(*[each for each in {HEAVY} if each in sys.modules])")

    assert loaded.split() == ["yaml"]


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("import reuselib", 0.1),
        ("from reuselib.cli import main; main(['--help'])", 0.4),
    ],
)
def test_starting_takes_little_cpu_time(code, limit):
    """The best of several, so that whatever else the machine does is left out."""
    measure = f"import sys, time; t = time.process_time(); {code}; sys.stderr.write(str(time.process_time() - t))"
    times = []
    for _ in range(7):
        done = subprocess.run(
            [sys.executable, "-c", measure], capture_output=True, text=True, check=True
        )
        times.append(float(done.stderr))
        if times[-1] < limit:
            break

    assert min(times) < limit


def test_the_public_names_are_the_same_everywhere():
    """The table that loads them, the imports that editors read, `__all__`, and what is really there."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {each.asname: node.module for node in block.body for each in node.names}  # type: ignore[attr-defined]

    assert declared == {
        public: f"reuselib.{module}" for public, module in reuselib._EXPORTS.items()
    }
    assert sorted(reuselib.__all__) == sorted(declared)
    assert all(getattr(reuselib, public).__name__ == public for public in declared)
    assert set(declared) <= set(dir(reuselib))


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'LoRa'"):
        _ = reuselib.LoRa
