"""The reference of the manifest leaves nothing out: held against real records of every adapter, not against the code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golden import CHILDREN, golden
from reuselib import catalog
from reuselib.lineage.manifest import Manifest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/manifest.md").read_text(encoding="utf-8")
LINEAGE = (ROOT / "docs/explanation/lineage.md").read_text(encoding="utf-8")
FREE = ("recipe", "task", "data", "structure", "rebuild", "facts", "renamed", "version")
"""What of a manifest is described elsewhere, or has names of its own as keys."""
BY_NAME = ("layers", "changes", "zeros", "tensors", "keep", "axes", "blocks")
"""What of a structure is keyed by names of the network."""


def section(title: str) -> str:
    """What stands below a heading, down to the next one of its rank or higher."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title}"
    return found[2]


def keys(text: str) -> set[str]:
    """First cells of the tables."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


def paths(value: Any, stops: tuple[str, ...], inside: str = "") -> Iterator[str]:
    """Dotted names of everything in an object; `[]` stands for the entries of a list."""
    for key, each in value.items():
        yield f"{inside}{key}"
        if key not in stops:
            nested = each[0] if isinstance(each, list) and each else each
            if isinstance(nested, dict):
                mark = "[]" if isinstance(each, list) else ""
                yield from paths(nested, stops, f"{inside}{key}{mark}.")


def build(name: str) -> dict[str, Any]:
    whole = json.loads((golden(name) / "lineage/manifest.json").read_bytes())
    return whole["predicate"]["buildDefinition"]


@pytest.mark.parametrize("name", CHILDREN)
class TestEveryRecord:
    def test_every_field_is_in_a_table(self, name):
        whole = json.loads((golden(name) / "lineage/manifest.json").read_bytes())
        known = keys(section("Fields"))
        for title in ("externalParameters", "internalParameters"):
            own = whole["predicate"]["buildDefinition"].pop(title)
            assert set(paths(own, FREE)) <= keys(section(title)), title
        run = whole["predicate"].pop("runDetails")
        byproducts = run.pop("byproducts")
        assert set(paths(run, FREE)) <= keys(section("runDetails"))
        dependencies = whole["predicate"]["buildDefinition"].pop("resolvedDependencies")

        assert set(paths(whole, ("digest", "annotations"))) <= known
        for title, entries in (("dependency", dependencies), ("byproduct", byproducts)):
            for entry in entries:
                told = section(title)
                assert set(paths(entry, ("digest", "annotations"))) <= keys(told)
                assert set(entry["digest"]) <= keys(section("digestSet"))
                for key in entry["annotations"]:
                    assert f"`{key}`" in told or f"annotations.{key}`" in told, key
                assert f"`{entry['annotations']['role']}`" in told

    def test_every_external_parameter_is_in_its_adapters_table(self, name):
        external = build(name)["externalParameters"]

        assert set(paths(external["recipe"], ())) <= keys(section(external["adapter"]))

    def test_every_key_of_a_structure_is_in_its_adapters_table(self, name):
        definition = build(name)
        settled = definition["internalParameters"]
        recorded = [(definition["externalParameters"]["adapter"], settled["structure"])]
        recorded += [(*each["adapter"], each["structure"]) for each in settled["rebuild"]]

        for kind, structure in recorded:
            told = keys(section(kind))
            # a table may name what lies inside without the object around it
            found = {path for path in paths(structure, BY_NAME) if not any(t.startswith(f"{path}.") for t in told)}  # fmt: skip
            assert found <= told, kind

    def test_every_fact_is_in_its_table(self, name):
        assert set(build(name)["internalParameters"]["facts"]) <= keys(section("Facts"))

    def test_every_figure_is_in_the_table_of_the_other_page(self, name):
        figures = json.loads((golden(name) / "lineage/metrics.json").read_bytes())

        assert set(figures) <= keys(LINEAGE)

    def test_the_relation_and_the_roles_are_those_of_the_table(self, name):
        manifest = Manifest.read(golden(name))
        row = re.search(rf"^\| \[`{manifest.definition.adapter}`\].*$", section("Relations"), re.MULTILINE)  # fmt: skip

        assert row
        assert f"`{manifest.relation}`" in row[0]
        assert {f"`{parent.role}`" for parent in manifest.parents} <= set(row[0].split("| ")[-1].strip(" |").split(", "))  # fmt: skip


def test_every_key_that_a_structure_may_have_is_on_the_page():
    """Also those that no golden record has: what the strict readers of structures ask for, by name."""
    asked: set[str] = set()
    for path in sorted((ROOT / "src/reuselib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Structure.read":
                given = [
                    *node.args,
                    *(each.value for each in node.keywords if each.arg == "optional"),
                ]
                asked |= {
                    part.value
                    for each in given
                    for part in ast.walk(each)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    told = {key.rpartition(".")[2] for kind in catalog.ADAPTERS for key in keys(section(kind))}

    assert {"trained", "saved", "dora", "loose"} <= asked
    assert asked <= told


def test_every_adapter_has_a_section():
    assert all(section(kind) for kind in catalog.ADAPTERS)
