"""The model card beside the record: a view for people and hubs, written anew from the record, never read back.

The keys of its front matter are those that Hugging Face reads (`huggingface_hub.ModelCardData` keeps all of them), and
`lineage`, which names the record. The card is not part of the payload, so that it can name the manifest's digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from reuselib.exchange.dossier import Dossier, hub_name, interval
from reuselib.lineage.manifest import MANIFEST
from reuselib.values.visible import visible

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.descriptors import Descriptor
    from reuselib.model.figures import Figures

RELATIONS = {"adapter": "adapter", "quantize": "quantized"}
"""Words of the hub for how a model relates to its base. `merge` is for several models; anything else is a
`finetune`."""
TAGS = {"prune": "pruned", "distill": "distilled", "convert": "converted"}
"""What the hub has no relation for."""
TASKS = {
    "text_classification": "text-classification",
    "causal_lm": "text-generation",
    "image_classification": "image-classification",
}
"""Our tasks by the hub's names."""
_ROWS = "hf://datasets/"


def card(dossier: Dossier) -> str:
    """A README.md with the front matter that hubs read. Unknown keys are left out."""
    return "\n".join(
        [
            "---",
            # JSON is YAML, and needs no YAML library
            *(f"{key}: {_yaml(value)}" for key, value in front(dossier).items()),
            "---",
            "",
            *_page(dossier),
            "",
        ]
    )


def front(dossier: Dossier) -> dict[str, Json]:
    """What stands between the dashes."""
    manifest, figures = dossier.manifest, dossier.figures
    bases: list[Json] = [hub_name(root.uri) for root in dossier.roots]
    datasets: list[Json] = [
        _dataset(each) for each in dossier.datasets if each.uri.startswith(_ROWS)
    ]
    metrics: list[Json] = [*sorted(figures.after)]
    tags = ("reuselib", str(manifest.definition.adapter), TAGS.get(manifest.relation, ""))
    keys: dict[str, Json] = {
        "base_model": bases[0] if len(bases) == 1 else bases,
        "base_model_relation": "merge"
        if len(dossier.merged) > 1
        else RELATIONS.get(manifest.relation, "finetune"),
        "library_name": _library(dossier),
        "pipeline_tag": TASKS.get(dossier.task),
        # the hub knows licences in lower case
        "license": dossier.licence.lower(),
        "datasets": datasets,
        "metrics": metrics,
        "tags": [tag for tag in dict.fromkeys(tags) if tag],
        "model-index": _results(dossier),
        "lineage": {"file": MANIFEST, "statementSha256": manifest.sha256},
    }
    return {key: value for key, value in keys.items() if value}


def _library(dossier: Dossier) -> str:
    if dossier.task == "module":
        return "reuselib"  # a network from Python: no library has a class for it
    return "peft" if dossier.manifest.relation == "adapter" else "transformers"


def _dataset(item: Descriptor) -> str:
    return item.uri.removeprefix(_ROWS).partition("@")[0]


def _results(dossier: Dossier) -> list[Json]:
    """The figures of the child as the hub lists them. A result needs a data set, so none without rows."""
    figures, rows = dossier.figures, next(iter(dossier.datasets), None)
    if not figures.after or rows is None:
        return []
    about: dict[str, Json] = {"name": _dataset(rows), "type": _dataset(rows), "split": "test"}
    metrics: list[Json] = [
        {"type": name, "value": figures.after[name]} for name in sorted(figures.after)
    ]
    task: Json = {"type": TASKS.get(dossier.task, dossier.task.replace("_", "-"))}
    result: Json = {"task": task, "dataset": about, "metrics": metrics}
    return [{"name": dossier.manifest.name, "results": [result]}]


def _page(dossier: Dossier) -> Iterator[str]:
    manifest, base = dossier.manifest, dossier.manifest.parents[0]
    begun = " and ".join(_code(root.uri) for root in dossier.roots)
    made = " and ".join(_code(parent.uri) for parent in dossier.merged)
    yield from (f"# {_plain(manifest.name)}", "")
    yield (
        f"Begun with {begun}, made from {made} by reuselib's {_code(manifest.definition.adapter)}. "
        f"This page is a view; the record is `{MANIFEST}`, and `reuselib verify .` checks the "
        "files against it."
    )
    facts = {
        "dirHash": _code(manifest.digests.dir_hash),
        "tensorHash1": _code(manifest.digests.tensor_hash),
        "parent's dirHash": _code(base.digests.dir_hash),
        "seed": str(manifest.definition.seed),
        "configuration": _code(json.dumps(dict(manifest.definition.recipe))),
        **{f"rows ({each.role})": _code(each.uri) for each in dossier.datasets},
        **dict(_decisive(dossier.figures)),
        **dict(_measured(dossier.figures)),
    }
    yield from _table("what", "value", facts)
    yield from _history(dossier)


def _history(dossier: Dossier) -> Iterator[str]:
    """Every model above this one that is at hand, the nearest first."""
    if not dossier.ancestors:
        return
    yield from ("", "## Made from", "")
    for known in dossier.ancestors.values():
        adapter = known.definition.adapter
        source = known.definition.recipe.get("source") if adapter is None else adapter
        yield f"- {_plain(known.name)}: {known.relation} {_code(source)}, dirHash {_code(known.digests.dir_hash)}"


def _table(left: str, right: str, rows: Mapping[str, str]) -> Iterable[str]:
    cells = (f"| {_plain(name)} | {value} |" for name, value in rows.items())
    return ("", f"| {left} | {right} |", "|---|---|", *cells)


def _decisive(figures: Figures) -> Iterator[tuple[str, str]]:
    after, before = figures.after.get(figures.metric), figures.before.get(figures.metric)
    if after is not None and before is not None:
        rows = figures.test.get("rows")
        yield (
            figures.metric,
            f"{after:.4f}, {before:.4f} before this step (measured on {rows} test rows)",
        )


def _measured(figures: Figures) -> Iterator[tuple[str, str]]:
    """What was measured besides the metric that decides."""
    if span := interval(figures, "after", figures.metric):
        yield f"{figures.metric}, 95 % interval", f"{span[0]:.4f} to {span[1]:.4f}"
    cost = figures.cost
    for name, title, form in (
        ("num_parameters", "parameters", "{:,}"),
        ("num_bytes", "bytes of weights", "{:,}"),
        ("flops", "operations for one row", "{:,}"),
        ("latency_p50", "milliseconds for one row", "{:.3g}"),
        ("latency_p50_batch32", "milliseconds for 32 rows", "{:.3g}"),
    ):
        if isinstance(value := cost.get(name), int | float):
            yield title, form.format(value)
    for name, title in (
        ("agreement", "rows answered like the parent"),
        ("kl", "KL from the parent"),
    ):
        if isinstance(value := figures.drift.get(name), int | float):
            yield title, f"{value:.4g}"
    for name, title in (("worst_class", "worst class"), ("ece", "calibration error")):
        if (value := figures.quality.get(name)) is not None:
            yield title, f"{value:.4f}"


def _code(value: object) -> str:
    """A value as code, in which nothing can end the span, the cell or the line."""
    return f"`{_line(value).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _plain(value: object) -> str:
    """A value as text: no markup, one line."""
    return re.sub(r"([|<>\[\]`*_\\])", r"\\\1", _line(value))


def _line(value: object) -> str:
    """In one line, with nothing in it that a terminal would obey."""
    return visible(" ".join(str(value).split()))


def _yaml(value: Json) -> str:
    """A value in one line of YAML 1.1, which is JSON but for two things."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    written = json.dumps(value, ensure_ascii=False)
    if isinstance(
        value, str
    ):  # what is not printable must be escaped, and pairs of surrogates mean nothing
        return re.sub(
            r"[^ -~]",
            lambda found: found[0] if found[0].isprintable() else f"\\U{ord(found[0]):08x}",
            written,
        )
    # `1e-05` would be read as text
    return re.sub(r"^(-?\d+)e", r"\1.0e", written) if isinstance(value, float) else written
