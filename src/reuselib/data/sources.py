"""From what a recipe writes after `source:` to tables of rows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, TypeAlias

from reuselib.data import files, hub, images, samples
from reuselib.data.terms import stated_terms
from reuselib.errors import DataError, SourceError

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.task import Rows

Kind: TypeAlias = Literal["sample", "imagefolder", "file", "hub"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_FORMS = "a hub id (org/name), ./file.jsonl, ./folder, imagefolder:./folder or sample:name"


@dataclass(frozen=True)
class Source:
    """An opened source: its splits, each read when it is asked for."""

    name: str
    """As the recipe wrote it."""
    uri: str
    """As a record may say it: no absolute path."""
    tables: Mapping[str, Callable[[], Rows]]
    facts: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def open(cls, source: str, *, subset: str | None = None, revision: str | None = None) -> Source:
        """Find a source.

        Raises:
            SourceError: it is not there.
        """
        require_known(source)
        kind, public = source_kind(source), public_source(source)
        if kind == "sample":
            sample = samples.read(source.removeprefix("sample:"))
            tables = {name: _constant(rows) for name, rows in sample.splits.items()}
            return cls(source, public, tables, {"packages": dict(sample.packages)})
        if kind == "hub":
            found = hub.find(source, subset=subset, revision=revision)
            uri = f"hf://datasets/{source}@{found.commit}"
            facts = {"revision": found.commit, **stated_terms(found.folder)}
            return cls(source, uri, found.tables, facts)
        path = _path(source)
        if kind == "imagefolder":
            return cls(source, public, images.folder_tables(path), stated_terms(path))
        if path.is_dir() or not path.suffix:
            return cls(source, public, files.folder_tables(path), stated_terms(path))
        return cls(source, public, {"train": lambda: files.read_file(path)})

    def rows(self, name: str) -> Rows:
        """The rows of a split of this source, or of a file.

        Raises:
            DataError: there is no such split; names the nearest.
        """
        if name in self.tables:
            return self.tables[name]()
        if _is_path(name):
            return files.read_file(_path(name))
        near = get_close_matches(name, self.tables, n=1)
        raise DataError(
            f"'{self.name}' has no split '{name}'",
            expected=f"one of {', '.join(self.tables)}, or a file such as ./{name}.jsonl",
            fix=f"did you mean '{near[0]}'?" if near else "name one of these",
        )


def source_kind(source: str) -> Kind:
    """What a name means; decided by the name alone, never by what happens to lie on the disk."""
    if source.startswith("sample:"):
        return "sample"
    if source.startswith("imagefolder:"):
        return "imagefolder"
    return "file" if _is_path(source) else "hub"


def require_known(source: str) -> None:
    """Refuse a source that cannot mean anything, before anything is read.

    Raises:
        SourceError: names the nearest sample, or the forms there are.
    """
    kind = source_kind(source)
    if kind == "sample" and source.removeprefix("sample:") not in samples.SAMPLES:
        names = [f"sample:{name}" for name in samples.SAMPLES]
        near = get_close_matches(source, names, n=1, cutoff=0.5)
        raise SourceError(
            f"there is no '{source}'",
            expected=", ".join(names),
            fix=f"did you mean '{near[0]}'?" if near else "name one of these",
        )
    if kind == "hub" and not _HUB_ID.fullmatch(source):
        raise SourceError(
            f"'{source[:120]}' is not a source of rows",
            expected=_FORMS,
            fix="begin a path with ./ or /",
        )


def public_source(source: str) -> str:
    """The source without the folders it lies in: `file:rows.jsonl`; hub ids as they are."""
    kind = source_kind(source)
    if kind in ("sample", "hub"):
        return source
    # Not `resolve`: a link keeps the name that the user knows it by.
    return f"{kind}:{os.path.basename(os.path.abspath(_path(source)))}"


def _is_path(text: str) -> bool:
    starts = ("file:", "./", "../", "~", ".\\", "..\\")
    path = PurePath(text)
    known = path.suffix in files.FORMATS
    return text in (".", "..") or text.startswith(starts) or path.is_absolute() or known


def _path(source: str) -> Path:
    return Path(source.removeprefix("imagefolder:").removeprefix("file:")).expanduser()


def _constant(rows: Rows) -> Callable[[], Rows]:
    return lambda: rows
