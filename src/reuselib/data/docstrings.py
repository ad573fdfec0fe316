"""Sentences from the docstrings of packages that are always installed.

The source files are parsed, never imported. The same versions of the packages give the same rows,
in the same order, so the result is kept in the user's cache folder under a name made of the
versions.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path

from reuselib.places import cache_folder

PACKAGES = (
    "accelerate",
    "datasets",
    "huggingface_hub",
    "numpy",
    "peft",
    "pydantic",
    "torch",
    "transformers",
)
"""All of them come with reuselib, so the sample needs no extra."""
NUM_SENTENCES = 1500
"""At most so many sentences a package: no package drowns the others, and nobody waits for all of
torch."""

_FORMAT = 1  # Part of the cache's name: raise it when the rows would come out differently.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_SENTENCE = re.compile(r"[A-Z][a-z' ][^<>{}|\\]{28,298}[.!?]")


def read() -> tuple[list[dict[str, str]], dict[str, str]]:
    """The rows (`text`, `package`), and the version of each package."""
    versions = {package: version(package) for package in PACKAGES}
    key = hashlib.sha256(json.dumps([_FORMAT, versions], sort_keys=True).encode()).hexdigest()
    file = cache_folder() / "samples" / f"docstrings-{key[:16]}.jsonl"
    rows = _cached(file)
    if rows is None:
        rows = _sentences()
        _keep(rows, file)
    return rows, versions


def _sentences() -> list[dict[str, str]]:
    found = {package: dict.fromkeys(_package_sentences(package)) for package in PACKAGES}
    # A sentence of two packages belongs to neither: its label would be a guess.
    owners = Counter(sentence for sentences in found.values() for sentence in sentences)
    return [
        {"text": sentence, "package": package}
        for package, sentences in found.items()
        for sentence in sentences
        if owners[sentence] == 1
    ]


def _package_sentences(package: str) -> Iterator[str]:
    """Distinct sentences of a package, from as many files as it takes."""
    seen: set[str] = set()
    for file in _files(package):
        for docstring in _docstrings(file):
            for sentence in split_sentences(docstring):
                if sentence not in seen:
                    seen.add(sentence)
                    yield sentence
                if len(seen) == NUM_SENTENCES:
                    return


def _files(package: str) -> list[Path]:
    """The source files of a package, in an order that mixes its parts, the same everywhere."""
    spec = PathFinder.find_spec(package)
    folder = Path(((spec and spec.submodule_search_locations) or [""])[0])
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*.py"))
    # Tests are long and have little to say.
    documented = (name for name in names if "tests/" not in name)
    return [folder / name for name in sorted(documented, key=_scattered)]


def _scattered(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            # Other people's invalid escapes are not our user's concern.
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # Packages ship templates and files for other versions of Python.
    # Only bodies of modules and classes are looked into: visiting every expression takes longer
    # than parsing.
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
        if isinstance(node, ast.Module | ast.ClassDef):
            nodes.extend(reversed(node.body))


def split_sentences(docstring: str) -> list[str]:
    """The whole English sentences of a docstring, without code, tables and lists of arguments."""
    sentences = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        if any(mark in paragraph for mark in (">>>", "```", "::", "\n    ", "---", ":param")):
            continue
        for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
            if sentence.isascii() and _SENTENCE.fullmatch(sentence):
                sentences.append(sentence)
    return sentences


def _cached(file: Path) -> list[dict[str, str]] | None:
    """Rows that an earlier run kept; None if there are none, or not all of them."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        checksum, rows = lines[0], lines[1:]
        return [json.loads(row) for row in rows] if checksum == _checksum(rows) else None
    except (OSError, ValueError, IndexError):
        return None


def _keep(rows: list[dict[str, str]], file: Path) -> None:
    """Write the cache: whole or not at all. Where that fails, the next run takes longer."""
    lines = [json.dumps(row) for row in rows]
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, so that what a full disk left half-written goes away with it.
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            temporary = Path(folder, file.name)
            temporary.write_text("\n".join([_checksum(lines), *lines]) + "\n", encoding="utf-8")
            os.replace(temporary, file)


def _checksum(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
