"""How a model was made, as the `formulation` of a CycloneDX bill, with the exact manifests inside."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from reuselib.exchange.components import (
    Part,
    package,
    properties,
    reference,
    rows_reference,
)
from reuselib.exchange.dossier import Dossier, flat, stamp, written
from reuselib.lineage.manifest import Manifest

if TYPE_CHECKING:
    from reuselib.adapter import Json

STATEMENT = "application/vnd.in-toto+json"
"""Content type of a manifest inside a bill."""
_OUTPUTS = {"metrics": "metrics", "trail": "log"}
"""What CycloneDX calls the other files of a record, by role; `evidence` for the rest."""
_KINDS: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
}


def formulation(dossier: Dossier) -> Part:
    """The step that made the model: what went in, with which settings, and what came out."""
    manifest = dossier.manifest
    details, sha256 = manifest.details, manifest.sha256
    workflow: Part = {
        "bom-ref": f"run:{sha256}",
        "uid": details.invocation_id or f"urn:reuselib:manifest:{sha256}",
        "name": f"{manifest.relation}: {manifest.definition.adapter}",
        "taskTypes": ["build"],
        "inputs": list(_inputs(dossier)),
        "outputs": list(_outputs(dossier)),
        "properties": properties(_settled(manifest)),
    }
    for key, time in (("timeStart", details.started), ("timeEnd", details.finished)):
        if time is not None:
            workflow[key] = stamp(time)
    versions = sorted(details.versions.items())
    return {
        "bom-ref": f"formula:{sha256}",
        "components": [package(name, version) for name, version in versions],
        "workflows": [workflow],
    }


def statement(payload: bytes) -> Part:
    """The exact bytes of a manifest, as an attachment."""
    content = base64.b64encode(payload).decode()
    return {"contentType": STATEMENT, "encoding": "base64", "content": content}


def _inputs(dossier: Dossier) -> Iterator[Part]:
    definition = dossier.manifest.definition
    for parent in dossier.manifest.parents:
        about = properties([("name", parent.name), ("role", parent.role)])
        yield {"resource": {"ref": reference(parent.manifest_sha256)}, "properties": about}
    for sha256, known in dossier.ancestors.items():
        source = {"ref": reference(sha256)}
        role = properties([("role", "parent-statement")])
        yield {"source": source, "data": statement(known.payload()), "properties": role}
    for item in dossier.datasets:
        about = properties([("name", item.name), ("role", item.role)])
        yield {"resource": {"ref": rows_reference(item)}, "properties": about}
    asked = [("seed", definition.seed), *flat(definition.recipe, "recipe")]
    asked += [*flat(definition.task or {}, "task"), *flat(definition.data or {}, "data")]
    yield {"parameters": [_parameter(name, value) for name, value in asked]}


def _parameter(name: str, value: Json) -> Part:
    kind = _KINDS.get(type(value))
    known = {"dataType": kind} if kind else {}
    return {"name": name, "value": written(value), **known}


def _outputs(dossier: Dossier) -> Iterator[Part]:
    manifest = dossier.manifest
    yield {"type": "artifact", "resource": {"ref": reference(manifest.sha256)}}
    for item in manifest.details.byproducts:
        link: Part = {"type": "evidence", "url": quote(item.name)}
        if "sha256" in item.digest:
            link["hashes"] = [{"alg": "SHA-256", "content": item.digest["sha256"]}]
        yield {
            "type": _OUTPUTS.get(item.role, "evidence"),
            "resource": {"externalReference": link},
            "properties": properties([("role", item.role)]),
        }
    yield {"type": "attestation", "data": statement(manifest.payload())}


def _settled(manifest: Manifest) -> list[tuple[str, Json]]:
    """What the run settled by itself, but for what only reuselib reads: that is in the manifest."""
    internal = manifest.definition.internal
    if internal is None:
        return []
    return [
        ("dtype", internal.dtype),
        ("device", internal.device),
        ("worldSize", internal.world_size),
        ("determinism", internal.determinism),
        *flat(internal.facts, "facts"),
    ]
