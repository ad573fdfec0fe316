"""What a model folder holds that could harm whoever opens it: every file by its content, nothing opened or run."""

from __future__ import annotations

import io
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from reuselib.errors import SourceError
from reuselib.scanning import configs, formats
from reuselib.scanning.archives import MAX_DATA, members
from reuselib.scanning.hazards import SEVERITIES, Hazard
from reuselib.scanning.opinion import at_hand, second_opinion
from reuselib.scanning.pickled import read_pickles
from reuselib.scanning.templates import templates_of_gguf

if TYPE_CHECKING:
    from reuselib.adapter import Json

_MAX_FILES = 10_000
_MAX_DEPTH = 64
_MAX_NESTING = 3
_MAX_TEXT = 16 << 20
_CODE = (
    ".py",
    ".pyc",
    ".pyd",
    ".so",
    ".dll",
    ".dylib",
    ".sh",
    ".bat",
    ".ps1",
    ".exe",
    ".js",
    ".lua",
    ".pth",
)
_PROSE = (".md", ".rst", ".html")
"""Texts that may show code without being code."""
_IMPORT = re.compile(
    rb"^(import [A-Za-z_][\w.]*( as \w+)?(, *[A-Za-z_][\w.]*)*|from [A-Za-z_.][\w.]* import .+)\r?$",
    re.MULTILINE,
)
_CALL = re.compile(
    rb"^\s*(def \w+\(|class \w+|@\w+|[\w.]+\(.*\)\s*$|[\w., ]+ = .*\()", re.MULTILINE
)
_YAML_CODE = re.compile(rb"!!?python/|tag:yaml\.org,2002:python")
_UNCHECKED = (
    "what weights do: a network can be trained to misbehave, and no file shows it",
    "what chat templates say: only constructs that leave the sandbox are looked for",
)


@dataclass(frozen=True)
class Scan:
    """What was come upon."""

    hazards: tuple[Hazard, ...]
    """The worst first, then by path."""
    formats: dict[str, int]
    """Number of files by format."""
    unchecked: tuple[str, ...]
    """What a reader might believe was looked for, and was not."""

    def of(self, *severities: str) -> tuple[Hazard, ...]:
        """Those of some severities."""
        return tuple(each for each in self.hazards if each.severity in severities)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that may run code or read elsewhere."""
        return not self.of("danger")

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "ok": self.ok,
            "hazards": [dict(each.to_json()) for each in self.hazards],
            "formats": dict(self.formats),
            "unchecked": list(self.unchecked),
        }


def scan(folder: Path) -> Scan:
    """Look at every file of a folder, links not followed.

    Of archives the members are looked into, to three archives deep; of large files, as much as tells. Time and memory
    are bounded, whatever lengths the files claim.

    Raises:
        SourceError: there is no such folder.
    """
    if not folder.is_dir():
        raise SourceError(f"no folder {folder}", expected="a model folder", fix="check the path")
    look = _Look()
    for number, path in enumerate(_files(folder, look)):
        if number >= _MAX_FILES:
            look.note("SCAN_LIMIT", "", f"only {_MAX_FILES} files were looked at")
            break
        name = path.relative_to(folder).as_posix()
        try:
            with path.open("rb") as file:
                look.at(_shown(name), file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            look.note("SCAN_LIMIT", _shown(name), f"it cannot be read: {error.strerror}")
    unchecked: list[str] = list(_UNCHECKED)
    if not at_hand():
        unchecked.append("a second opinion of picklescan: pip install 'reuselib[scan]'")
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    hazards = sorted(
        dict.fromkeys(look.hazards), key=lambda h: (order[h.severity], h.path, h.code, h.message)
    )
    return Scan(tuple(hazards), dict(sorted(look.formats.items())), tuple(unchecked))


def _files(folder: Path, look: _Look) -> Iterator[Path]:
    """Plain files, in order of path; what is none is noted."""
    left = [folder]
    while left:
        place = left.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            look.note("SCAN_LIMIT", place.name, f"it cannot be read: {error.strerror}")
            continue
        for entry in entries:
            name = _shown(Path(entry.path).relative_to(folder).as_posix())
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                look.link(folder, Path(entry.path), name)
            elif stat.S_ISDIR(mode):
                if name.count("/") >= _MAX_DEPTH:
                    look.note("SCAN_LIMIT", name, f"folders are nested deeper than {_MAX_DEPTH}")
                else:
                    left.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)
            else:
                look.note("SPECIAL_FILE", name, "it is neither a file nor a folder")


@dataclass
class _Look:
    """What was come upon so far."""

    hazards: list[Hazard] = field(default_factory=list[Hazard])
    formats: Counter[str] = field(default_factory=Counter[str])

    def note(self, code: str, path: str, message: str) -> None:
        self.hazards.append(Hazard(code, path, message))

    def link(self, folder: Path, path: Path, name: str) -> None:
        """A cache of a hub links to files beside it; every other link is a way out."""
        target = Path(os.path.normpath(path.parent / os.readlink(path)))
        blobs = folder.absolute().parent.parent / "blobs"
        if Path(os.path.abspath(target)).parent != blobs:
            self.note("LINK", name, "it is a link; what is behind it was not looked at")
            return
        with target.open("rb") as file:
            self.at(name, file, os.fstat(file.fileno()).st_size)

    def at(self, path: str, file: BinaryIO, size: int, nesting: int = 0) -> None:
        """One file, or one member of an archive."""
        start = file.read(formats.START)
        kind = formats.format_of(start, size, path)
        file.seek(0)
        if self._pickles(path, file, start, kind) and kind in ("unknown", "text", "json", "onnx"):
            kind = "pickle"
        if nesting == 0:
            self.formats[kind] += 1
        self._named(path, kind)
        if kind in formats.CONTAINERS:
            self._inside(path, file, kind, nesting)
        elif kind in formats.CLOSED:
            self.note("ARCHIVE_UNREAD", path, f"it is a {kind} archive, which is not looked into")
        elif kind in formats.OPAQUE:
            self.note("UNREAD_FORMAT", path, f"it is {kind}, which may hold code")
        elif kind == "unknown":
            self.note("UNKNOWN_FORMAT", path, "it is in no format that is known here")
        self._content(path, file, kind, size)

    def _named(self, path: str, kind: str) -> None:
        name = path.rpartition("!")[2]
        suffix = PurePosixPath(name).suffix.lower()
        if kind in formats.EXECUTABLE:
            self.note("EXECUTABLE", path, f"it is a program ({kind})")
        elif suffix in _CODE and not (suffix == ".pth" and kind != "text"):
            self.note("CODE", path, f"{suffix} files are code")
        elif formats.misnamed(name, kind):
            self.note("MISNAMED", path, f"it is called {suffix}, and is {kind}")

    def _pickles(self, path: str, file: BinaryIO, start: bytes, kind: str) -> bool:
        """Whether pickles begin here, or behind the head of an array of objects; what they do is noted."""
        if kind == "npy":
            if not re.search(rb"'[|<>=]?O\d*'", start[:1024]):
                return False
            wide = start[6:7] >= b"\x02"
            at = 12 if wide else 10
            file.seek(at + int.from_bytes(start[8:at], "little"))
        begin = file.tell()
        found = read_pickles(file)
        if found is None and kind == "npy":
            self.note("PICKLE", path, "it is an array of objects, which are pickled")
        if found is None:
            return False
        told = f"{found.num_pickles} pickle(s)" + (
            "" if found.complete else ", not read to the end"
        )
        if found.strangers:
            names = ", ".join(found.strangers[:8]) + (", ..." if len(found.strangers) > 8 else "")
            verb = "calls" if found.calls else "imports"
            self.note("PICKLE_CODE", path, f"{told}; loading it {verb} {names[:400]}")
        else:
            self.note("PICKLE", path, f"{told}, which name no more than weights need")
        if at_hand():
            file.seek(begin)
            if harmful := second_opinion(file.read(MAX_DATA)):
                self.note("PICKLE_CODE", path, f"picklescan finds {', '.join(harmful[:8])[:400]}")
        return True

    def _inside(self, path: str, file: BinaryIO, kind: str, nesting: int) -> None:
        if nesting == _MAX_NESTING:
            self.note("SCAN_LIMIT", path, f"archives are nested deeper than {_MAX_NESTING}")
            return
        count = 0
        for member in members(file, kind):
            inside = f"{path}!{member.name}"
            for code, message in member.faults:
                self.note(code, inside if member.name else path, message)
            if member.data:
                count += 1
                self.at(inside, io.BytesIO(member.data), len(member.data), nesting + 1)
            elif member.name and not member.name.endswith("/"):
                count += 1
                self._named(inside, "empty")
        if nesting == 0:
            self.note("ARCHIVE", path, f"it is a {kind} archive; {count} members were looked into")

    def _content(self, path: str, file: BinaryIO, kind: str, size: int) -> None:
        if path.startswith("lineage/"):
            return  # the record: no library loads it, and `verify` reads it strictly
        file.seek(0)
        if kind == "gguf":
            for template in templates_of_gguf(file.read(MAX_DATA)):
                self.hazards += configs.judge_template(template, path)
        elif kind in ("json", "text"):
            if size > _MAX_TEXT:
                self.note("SCAN_LIMIT", path, f"only the first {_MAX_TEXT:,} bytes were searched")
            self._text(path, file.read(_MAX_TEXT), kind)

    def _text(self, path: str, data: bytes, kind: str) -> None:
        suffix = PurePosixPath(path).suffix.lower()
        if kind == "json" and suffix != ".jsonl":
            self.hazards += configs.search(data, path)
        elif suffix in (".jinja", ".jinja2", ".j2"):
            self.hazards += configs.judge_template(data.decode("utf-8", "replace"), path)
        if _YAML_CODE.search(data) and suffix not in _PROSE:
            self.note("CODE", path, "it holds a YAML tag that makes Python objects")
        if suffix not in (*_PROSE, *_CODE) and _IMPORT.search(data) and _CALL.search(data):
            self.note("CODE_LIKE", path, "it reads like Python source")


def _shown(name: str) -> str:
    """A name as it may be printed."""
    return name.encode("utf-8", "backslashreplace").decode().encode("unicode_escape").decode()
