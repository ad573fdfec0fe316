"""What a bill of materials lists, as components of CycloneDX: the model, what it was made from, rows and packages.

Every value comes from the record; what is not known is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reuselib.exchange import terms
from reuselib.exchange.dossier import Dossier, interval, text, written
from reuselib.lineage.manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from reuselib.adapter import Json
    from reuselib.lineage.descriptors import Descriptor

Part = dict[str, Any]
"""A JSON object of CycloneDX."""
APPROACHES = {
    "text_classification": ("supervised", "text"),
    "image_classification": ("supervised", "image"),
    "causal_lm": ("self-supervised", "text"),
}
"""By task: how such a model learns, and what it is given."""


def model(dossier: Dossier) -> Part:
    """The model itself, with its files, its ancestors and its model card."""
    manifest = dossier.manifest
    return {
        "type": "machine-learning-model",
        "bom-ref": reference(manifest.sha256),
        "name": manifest.name,
        **_identity(manifest.digests.dir_hash),
        **licences(dossier.licence),
        "pedigree": {
            "ancestors": list(ancestors(dossier)),
            "notes": _derived(dossier),
        },
        "externalReferences": [
            {
                "type": "attestation",
                "url": MANIFEST,
                "comment": "how the model was made: an in-toto statement, whole in `formulation`",
                "hashes": [{"alg": "SHA-256", "content": manifest.sha256}],
            }
        ],
        "components": [
            {"type": "file", "name": name, **_identity(digest)}
            for name, digest in sorted(dossier.files.items())
        ],
        "modelCard": _card(dossier),
        "properties": properties(_about(manifest)),
    }


def ancestors(dossier: Dossier) -> Iterator[Part]:
    """Every model above, each once: the parents first. A parent whose manifest is not at hand is listed as named."""
    roles: dict[str, list[tuple[str, Json]]] = {}
    for parent in dossier.manifest.parents:
        roles.setdefault(parent.manifest_sha256, []).append(("role", parent.role))
    for sha256, parent in dossier.parents.items():
        known = dossier.ancestors.get(sha256)
        facts = _about(known) if known else _digests(parent.digests.to_json())
        terms_of = known.annotations if known and known.annotations else parent.annotations
        yield {
            "type": "machine-learning-model",
            "bom-ref": reference(sha256),
            "name": known.name if known else parent.name,
            **_identity(parent.digests.dir_hash),
            **licences(text(terms_of.get("license"))),
            **({"purl": parent.uri} if parent.uri.startswith("pkg:") else {}),
            "properties": properties([("uri", parent.uri), *roles.get(sha256, ()), *facts]),
        }


def rows(item: Descriptor) -> Part:
    """A data set."""
    facts = [("role", item.role), *_digests(item.digest), *item.annotations.items()]
    return {
        "type": "data",
        "bom-ref": rows_reference(item),
        "name": item.uri or item.name,
        **licences(text(item.annotations.get("license"))),
        "data": [{"type": "dataset", "name": item.name}],
        "properties": properties([fact for fact in facts if fact[0] != "license"]),
    }


def package(name: str, version: str) -> Part:
    """A package that computed the weights."""
    about: Part = {"type": "library", "name": name, "version": version}
    if name != "python":
        about["purl"] = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    return about


def reference(manifest_sha256: str) -> str:
    """How the parts of the bill refer to a model."""
    return f"statement:{manifest_sha256}"


def rows_reference(item: Descriptor) -> str:
    """How they refer to a data set."""
    return f"rows:{item.name}"


def properties(facts: list[tuple[str, Json]]) -> list[Part]:
    """Facts that CycloneDX has no field for, under names of our own."""
    return [{"name": f"reuselib:{name}", "value": written(value)} for name, value in facts]


def licences(recorded: str) -> Part:
    """Terms as recorded; nothing if there are none."""
    found: list[Part] = []
    for name in terms.parts(recorded):
        known = terms.identifier(name)
        found.append({"license": {"id": known} if known else {"name": name}})
    return {"licenses": found} if found else {}


def _identity(digest: str) -> Part:
    return {"hashes": [{"alg": "SHA-256", "content": digest}]}


def _digests(digests: Mapping[str, str]) -> list[tuple[str, Json]]:
    return [(f"digest:{algorithm}", value) for algorithm, value in sorted(digests.items())]


def _about(manifest: Manifest) -> list[tuple[str, Json]]:
    definition, internal = manifest.definition, manifest.definition.internal
    facts: list[tuple[str, Json]] = [*_digests(manifest.digests.to_json())]
    facts += [("digest:statement", manifest.sha256), ("relation", manifest.relation)]
    if definition.adapter and internal:
        facts += [("adapter", definition.adapter), ("form", internal.form)]
        facts += [("derivationId", internal.derivation_id)]
        facts += [("madeFrom", parent.digests.dir_hash) for parent in manifest.parents]
    return facts


def _derived(dossier: Dossier) -> str:
    manifest = dossier.manifest
    made = ", ".join(f"{parent.role} {parent.uri or parent.name}" for parent in manifest.parents)
    return f"{manifest.relation} by {manifest.definition.adapter}, from {made}"


def _card(dossier: Dossier) -> Part:
    figures = dossier.figures
    parameters: Part = {"datasets": [{"ref": rows_reference(item)} for item in dossier.datasets]}
    if dossier.task:
        parameters["task"] = dossier.task.replace("_", "-")
    if dossier.task in APPROACHES:
        approach, given = APPROACHES[dossier.task]
        parameters |= {"approach": {"type": approach}, "inputs": [{"format": given}]}
    found: Part = {
        "modelParameters": {key: value for key, value in parameters.items() if value},
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(dossier))},
        "considerations": {"technicalLimitations": list(limits(dossier))},
        "properties": properties(
            [(f"cost:{name}", value) for name, value in sorted(figures.cost.items())]
        ),
    }
    return {key: value for key, value in found.items() if _is_told(value)}


def _is_told(value: Part | list[Part]) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)


def _metrics(dossier: Dossier) -> Iterator[Part]:
    figures = dossier.figures
    for phase, values in (("before", figures.before), ("after", figures.after)):
        for name, value in sorted(values.items()):
            metric: Part = {"type": name, "value": written(value), "slice": phase}
            if span := interval(figures, phase, name):
                low, high = map(written, span)
                metric["confidenceInterval"] = {"lowerBound": low, "upperBound": high}
            yield metric


def limits(dossier: Dossier) -> Iterator[str]:
    """What the record itself says against the figures."""
    for item in dossier.datasets:
        if shared := item.annotations.get("test_rows_in_train"):
            yield f"{written(shared)} test rows of {item.name} are among the training rows too"
    internal = dossier.manifest.definition.internal
    if internal and internal.determinism != "strict":
        yield "made on a device that may give other last bits the next time"
