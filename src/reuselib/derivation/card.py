"""The model card beside the record: a view for people and hubs, written anew from the manifest, never read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.manifest import Manifest
    from reuselib.model.figures import Figures

RELATIONS = {"adapter": "adapter", "quantize": "quantized"}
"""Words of the Hugging Face card for how a model relates to its base; everything else is a finetune (its `merge` is
for several models)."""


def card(manifest: Manifest, figures: Figures, root: str) -> str:
    """A README.md with the front matter that hubs read.

    Args:
        manifest: of the model.
        figures: what was measured.
        root: uri of the base that the whole chain began with.
    """
    definition = manifest.definition
    base = manifest.parents[0]
    front: dict[str, Json] = {
        "base_model": root.removeprefix("pkg:huggingface/").partition("@")[0],
        "base_model_relation": RELATIONS.get(manifest.relation, "finetune"),
        "library_name": "peft" if manifest.relation == "adapter" else "transformers",
        "tags": ["reuselib", str(definition.adapter)],
    }
    lines = [
        "---",
        # JSON is YAML, and needs no YAML library
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"Begun with `{root}`, made from `{base.uri}` by reuselib's `{definition.adapter}`. "
        "This page is a view; the record is `lineage/manifest.json`, and `reuselib verify .` checks the "
        "files against it.",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _facts(manifest, figures).items()),
        "",
    ]
    return "\n".join(lines)


def _facts(manifest: Manifest, figures: Figures) -> dict[str, str]:
    facts = {
        "dirHash": f"`{manifest.digests.dir_hash}`",
        "tensorHash1": f"`{manifest.digests.tensor_hash}`",
        "parent's dirHash": f"`{manifest.parents[0].digests.dir_hash}`",
        "seed": str(manifest.definition.seed),
        "configuration": f"`{json.dumps(dict(manifest.definition.recipe))}`",
    }
    if figures.metric:
        before, after = figures.before[figures.metric], figures.after[figures.metric]
        rows = figures.test.get("rows")
        facts[figures.metric] = (
            f"{after:.4f}, {before:.4f} before this step (measured on {rows} test rows)"
        )
    return facts | dict(_measured(figures))


def _measured(figures: Figures) -> Iterator[tuple[str, str]]:
    """What was measured besides the metric that decides."""
    interval = figures.intervals.get("after")
    if isinstance(interval, dict) and isinstance(span := interval.get(figures.metric), list):
        yield f"{figures.metric}, 95 % interval", f"{span[0]:.4f} to {span[1]:.4f}"
    cost = figures.cost
    for name, title, text in (
        ("num_parameters", "parameters", "{:,}"),
        ("num_bytes", "bytes of weights", "{:,}"),
        ("flops", "operations for one row", "{:,}"),
        ("latency_p50", "milliseconds for one row", "{:.3g}"),
        ("latency_p50_batch32", "milliseconds for 32 rows", "{:.3g}"),
    ):
        if isinstance(value := cost.get(name), int | float):
            yield title, text.format(value)
    for name, title in (
        ("agreement", "rows answered like the parent"),
        ("kl", "KL from the parent"),
    ):
        if isinstance(value := figures.drift.get(name), int | float):
            yield title, f"{value:.4g}"
    for name, title in (("worst_class", "worst class"), ("ece", "calibration error")):
        if (value := figures.quality.get(name)) is not None:
            yield title, f"{value:.4f}"
