"""How much of what a reuser needs to know a model folder tells: by attribute, with where each value comes from.

The attributes are those that engineers asked for in Jiang et al. (ICSE 2023, table I) and those that PeaTMOSS (MSR
2024) found missing, in the groups of the former. Unknown is a value, and each unknown says how to fill it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from reuselib.errors import ReuseError
from reuselib.lineage import canonical
from reuselib.lineage.chain import Chain
from reuselib.lineage.descriptors import Descriptor
from reuselib.lineage.licence import Licence, carded_licence
from reuselib.lineage.record import ENVIRONMENT
from reuselib.lineage.trail import TRAIL
from reuselib.model.figures import Figures, read_figures
from reuselib.values.front_matter import read_front_matter

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.manifest import Manifest

Origin: TypeAlias = Literal["measured", "declared", "inherited", "unknown"]
"""`measured` by reuselib when the model was made, `declared` by somebody, `inherited` from a parent."""
Group: TypeAlias = Literal["provenance", "reproducibility", "portability", "traditional"]
GROUPS: tuple[Group, ...] = ("provenance", "reproducibility", "portability", "traditional")


@dataclass(frozen=True)
class Attribute:
    """One thing that is worth knowing."""

    group: Group
    name: str
    source: Origin
    fix: str
    """How it gets known, if it is not."""

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {**vars(self), "fix": self.fix if self.source == "unknown" else ""}


@dataclass(frozen=True)
class Completeness:
    """Every attribute, in the order of the groups."""

    attributes: tuple[Attribute, ...]

    @property
    def score(self) -> float:
        """Share of attributes that are known, from 0 to 1."""
        return _share(self.attributes)

    @property
    def by_group(self) -> dict[Group, float]:
        """The same of each group."""
        return {
            group: _share([each for each in self.attributes if each.group == group])
            for group in GROUPS
        }

    @property
    def gaps(self) -> tuple[Attribute, ...]:
        """What is unknown."""
        return tuple(each for each in self.attributes if each.source == "unknown")

    def to_json(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            "score": self.score,
            "groups": {**self.by_group},
            "attributes": [each.to_json() for each in self.attributes],
        }


def complete(folder: Path, manifest: Manifest | None, chain: Chain | None = None) -> Completeness:
    """How complete a folder's record and card are together.

    Args:
        folder: the model.
        manifest: its own; None if it has none that can be read.
        chain: of its ancestors.
    """
    known = _Known(
        manifest, chain or Chain({}), _figures(folder), _environment(folder), _front(folder), folder
    )
    return Completeness(
        tuple(Attribute(group, name, source(known), fix) for group, name, source, fix in _TABLE)
    )


@dataclass(frozen=True)
class _Known:
    """What there is to look at."""

    manifest: Manifest | None
    chain: Chain
    figures: Figures
    environment: Mapping[str, Json]
    front: Mapping[str, Json]
    folder: Path
    names: frozenset[str] = field(default=frozenset(), init=False)

    def __post_init__(self) -> None:
        byproducts = self.manifest.details.byproducts if self.manifest else ()
        object.__setattr__(self, "names", frozenset(each.name for each in byproducts))

    @property
    def is_derived(self) -> bool:
        return self.manifest is not None and bool(self.manifest.parents)

    def dataset(self) -> Descriptor | None:
        items = self.manifest.definition.dependencies if self.manifest else ()
        return next((each for each in items if each.role == "dataset"), None)


Source: TypeAlias = Callable[[_Known], Origin]


def _measured(told: Callable[[_Known], object]) -> Source:
    """Known by measurement, if there is something."""
    return lambda known: "measured" if known.is_derived and told(known) else "unknown"


def _declared(*keys: str) -> Source:
    """Known if the card's front matter says one of these."""
    return lambda known: "declared" if any(known.front.get(key) for key in keys) else "unknown"


def _either(first: Source, second: Source) -> Source:
    def source(known: _Known) -> Origin:
        found = first(known)
        return found if found != "unknown" else second(known)

    return source


def _licence(known: _Known) -> Origin:
    told = Licence.parse(known.manifest.annotations) if known.manifest else None
    if told:
        return told.source
    return "declared" if carded_licence(known.folder) else "unknown"


def _file(*names: str) -> Source:
    return lambda known: (
        "declared" if any((known.folder / each).is_file() for each in names) else "unknown"
    )


def _recorded(told: Callable[[Manifest], object]) -> Source:
    """Known by the manifest, if there is something."""
    return _measured(lambda known: known.manifest and told(known.manifest) is not None)


def _preprocessing(known: _Known) -> Origin:
    internal = known.manifest.definition.internal if known.manifest else None
    if internal and internal.requires:
        return "inherited"  # an adapter is used with what prepares the inputs of its base
    names = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
    return _file(*names)(known)


def _determinism(manifest: Manifest) -> object:
    return manifest.definition.internal and manifest.definition.internal.determinism


def _cost(name: str) -> Source:
    return _measured(lambda known: known.figures.cost.get(name) is not None)


def _split(name: str) -> Callable[[_Known], object]:
    def told(known: _Known) -> object:
        rows = known.dataset()
        splits = rows.annotations.get("splits") if rows else None
        return splits.get(name) if isinstance(splits, dict) else None

    return told


_DERIVE = "derive the model with reuselib, which records it"
_ROWS = "derive it with data, so that it is measured"
_CARD = "write `{}` into the front matter of README.md"
_TASK = _recorded(lambda manifest: manifest.definition.task)
_PARENT = _measured(lambda known: True)

_TABLE: tuple[tuple[Group, str, Source, str], ...] = (
    ("provenance", "parent", _either(_PARENT, _declared("base_model")), _DERIVE),
    ("provenance", "relation", _either(_PARENT, _declared("base_model_relation")), _DERIVE),
    ("provenance", "whole history", _measured(lambda k: not k.chain.missing and k.chain.manifests),
     "bring the manifests of all ancestors into lineage/ancestors"),
    ("provenance", "data set", _either(_measured(_Known.dataset), _declared("datasets")), _ROWS),
    ("provenance", "splits", _measured(_split("test")), _ROWS),
    ("provenance", "architecture", _either(_TASK, _file("config.json")), "save the model with its config.json"),
    ("provenance", "performance", _either(_measured(lambda k: k.figures.after), _declared("model-index")), _ROWS),
    ("provenance", "licence", _licence, _CARD.format("license")),
    ("provenance", "authors", _declared("authors", "author", "model_creator"), _CARD.format("authors")),
    ("provenance", "paper or address", _declared("paper", "arxiv", "repo", "doi", "homepage"), _CARD.format("paper")),
    ("reproducibility", "configuration", _recorded(lambda m: m.definition.recipe), _DERIVE),
    ("reproducibility", "seed", _recorded(lambda m: m.definition.seed), _DERIVE),
    ("reproducibility", "versions", _recorded(lambda m: m.details.versions or None), _DERIVE),
    ("reproducibility", "environment", _measured(lambda k: k.environment), _DERIVE),
    ("reproducibility", "hardware", _measured(lambda k: k.environment.get("cpu")), _DERIVE),
    ("reproducibility", "determinism", _recorded(_determinism), _DERIVE),
    ("reproducibility", "wall time", _cost("seconds"), _DERIVE),
    ("reproducibility", "memory", _cost("peak_bytes"), "derive it on a system that tells what a process holds"),
    ("reproducibility", "trail", _measured(lambda k: TRAIL in k.names or not _trains(k)), _DERIVE),
    ("reproducibility", "rows by digest", _measured(lambda k: (d := k.dataset()) and d.digest.get("rowsHash1")), _ROWS),
    ("portability", "task and labels", _either(_TASK, _declared("pipeline_tag")), _CARD.format("pipeline_tag")),
    ("portability", "preprocessing", _preprocessing, "save the tokenizer or image processor with the model"),
    ("portability", "parameters", _cost("num_parameters"), _DERIVE),
    ("portability", "size", _cost("num_bytes"), _DERIVE),
    ("portability", "operations", _cost("flops"), _ROWS),
    ("portability", "latency", _cost("latency_p50"), _ROWS),
    ("portability", "protocol of latency", _measured(lambda k: k.figures.protocol), _ROWS),
    ("portability", "library", _either(_PARENT, _declared("library_name")), _CARD.format("library_name")),
    ("traditional", "version", _either(_PARENT, _declared("version")), _CARD.format("version")),
    ("traditional", "interval of the metric", _measured(lambda k: k.figures.intervals.get("after")), _ROWS),
    ("traditional", "weakest part of the rows",
     _measured(lambda k: {"worst_slice", "worst_class"} & k.figures.quality.keys()), _ROWS),
    ("traditional", "change against the parent", _measured(lambda k: k.figures.drift), _ROWS),
    ("traditional", "language", _declared("language"), _CARD.format("language")),
    ("traditional", "limitations", _declared("limitations", "bias", "intended_use"), _CARD.format("limitations")),
    ("traditional", "maintenance", _declared("maintenance", "contact", "support"), _CARD.format("contact")),
)  # fmt: skip


def _trains(known: _Known) -> bool:
    """Whether the step had a loop to leave a trail of."""
    recipe = known.manifest.definition.recipe if known.manifest else {}
    return recipe.get("fit") is not None


def _share(attributes: tuple[Attribute, ...] | list[Attribute]) -> float:
    known = sum(each.source != "unknown" for each in attributes)
    return known / len(attributes) if attributes else 0.0


def _figures(folder: Path) -> Figures:
    try:
        return read_figures(folder)
    except (ReuseError, OSError):
        return Figures()


def _environment(folder: Path) -> dict[str, Json]:
    try:
        with (folder / ENVIRONMENT).open("rb") as file:
            value = canonical.loads(file.read(canonical.MAX_BYTES + 1))
    except (ReuseError, OSError):
        return {}
    return value if isinstance(value, dict) else {}


def _front(folder: Path) -> dict[str, Json]:
    try:
        document = read_front_matter(folder)
    except ReuseError:
        return {}
    value = document.value if document else None
    return value if isinstance(value, dict) else {}
