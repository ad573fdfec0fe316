"""Small real data sets that are already on the machine, inside installed packages.

`senses` and `senses3` come from a lexicon of English adjectives, tagged by hand and in the public
domain (PDDL), that the package textblob brings; `digits` are the images that scikit-learn brings;
`docstrings` has its own file. No package is imported for its data.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from reuselib.data import docstrings
from reuselib.data.splits import hold_out
from reuselib.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from reuselib.task import Rows

NEUTRAL = 0.05
"""A sense whose polarity lies within this distance of zero is neither positive nor negative."""


@dataclass(frozen=True)
class Sample:
    """The splits of a sample, and the packages (with versions) that they came from."""

    splits: Mapping[str, Rows]
    packages: Mapping[str, str]


def read(name: str) -> Sample:
    """Read one of `SAMPLES`.

    Raises:
        MissingExtra: the package that holds it is not installed.
    """
    return SAMPLES[name]()


def _senses() -> Sample:
    return _lexicon(("negative", "positive"))


def _senses3() -> Sample:
    return _lexicon(("negative", "neutral", "positive"))


def _lexicon(labels: tuple[str, ...]) -> Sample:
    """Is this sense of a word positive or negative? All senses of a word are in the same split.

    A sense that the lexicon lists several times counts once, by the mean of its polarities: a text
    with two labels teaches nothing, and one that is repeated would be measured twice.
    """
    file = _package_file("textblob", "textblob", "en/en-sentiment.xml")
    polarities: dict[tuple[str, str], list[float]] = {}
    for word in _xml_attributes(file, "word"):
        form, sense = word["form"].strip(), word.get("sense", "").strip()
        if form and sense:
            polarities.setdefault((form, sense), []).append(float(word["polarity"]))
    splits: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for (form, sense), values in polarities.items():
        label = _label(sum(values) / len(values))
        if label in labels:
            splits[_side(form)].append({"text": f"{form}: {sense}", "label": label})
    return Sample(splits, {"textblob": version("textblob")})


def _label(polarity: float) -> str:
    if abs(polarity) <= NEUTRAL:
        return "neutral"
    return "positive" if polarity > 0 else "negative"


def _side(form: str) -> str:
    """One word in six is a test word."""
    place = int.from_bytes(hashlib.sha256(form.lower().encode()).digest()[:8])
    return "test" if place < 2**64 // 6 else "train"


def _digits() -> Sample:
    """Handwritten digits: 8 x 8 grey images (uint8) and the number that each shows."""
    import numpy as np

    file = _package_file("scikit-learn", "sklearn", "datasets/data/digits.csv.gz")
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    # The file counts 16 shades of grey; an image has 255.
    images = (table[:, :64].reshape(-1, 8, 8).astype(np.uint16) * 255 // 16).astype(np.uint8)
    rows = [
        {"image": image, "label": int(label)}
        for image, label in zip(images, table[:, 64], strict=True)
    ]
    train, test = hold_out(rows, 0.2, purpose="test")
    return Sample({"train": train, "test": test}, {"scikit-learn": version("scikit-learn")})


def _docstrings() -> Sample:
    """Sentences from the documentation of installed packages; the label is the package."""
    rows, packages = docstrings.read()
    train, test = hold_out(rows, 0.1, purpose="test")
    return Sample({"train": train, "test": test}, packages)


def _package_file(package: str, module: str, path: str) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = PathFinder.find_spec(module)
    try:
        version(package)
    except PackageNotFoundError:
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, path)
        if file.is_file():
            return file
    raise MissingExtra(
        f"the package {package}, which holds this sample, is not installed or lacks {path}",
        expected=f"the package {package}",
        fix='install the extra `samples`: pip install "reuselib[samples]"',
    )


def _xml_attributes(file: Path, tag: str) -> Iterator[Mapping[str, Any]]:
    """The attributes of every `tag`. A document type is refused, so no entity is ever expanded."""
    found: list[Mapping[str, Any]] = []

    def start(name: str, attributes: Mapping[str, Any]) -> None:
        if name == tag:
            found.append(attributes)

    def refuse(*_: object) -> None:
        raise DataError(
            f"'{file.name}' declares a document type",
            expected="plain XML without declarations",
            fix="install the package that holds the file again",
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise DataError(
            f"'{file.name}' is not well-formed: {error}",
            expected="the XML file as it was published",
            fix="install the package that holds the file again",
        ) from error
    return iter(found)


SAMPLES: Mapping[str, Callable[[], Sample]] = {
    "digits": _digits,
    "docstrings": _docstrings,
    "senses": _senses,
    "senses3": _senses3,
}
"""The samples by name."""
