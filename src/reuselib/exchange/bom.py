"""A model's record as a CycloneDX 1.7 machine-learning bill of materials, and the record out of such a bill again.

The bill is a readable view with the exact bytes of the manifest inside, and those of its ancestors, so nothing is lost:
`manifest_of_bom` gives back what was signed, byte for byte. The same record always gives the same bill.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reuselib.errors import IntegrityError, MissingExtra
from reuselib.exchange.agreement import check_view
from reuselib.exchange.components import Part, model, reference, rows, rows_reference
from reuselib.exchange.dossier import Dossier, stamp
from reuselib.exchange.workflow import STATEMENT, formulation
from reuselib.lineage import canonical
from reuselib.lineage.chain import ANCESTORS
from reuselib.lineage.manifest import Manifest
from reuselib.values.visible import visible_json

if TYPE_CHECKING:
    from reuselib.adapter import Json

SPEC = "1.7"
MAX_BYTES = 64 * 2**20
"""Of a bill: manifests of a whole history, a third longer in base64."""


def bom(dossier: Dossier) -> bytes:
    """The bill, as JSON for people and programs. What the record does not know is left out.

    Raises:
        IntegrityError: `LIMIT`, the history is longer than `manifest_of_bom` would read.
    """
    manifest = dossier.manifest
    finished = manifest.details.finished
    version = manifest.details.versions.get("reuselib")
    tool = {"type": "application", "name": "reuselib"} | ({"version": version} if version else {})
    metadata: Part = {"tools": {"components": [tool]}, "component": model(dossier)}
    if finished is not None:
        metadata = {"timestamp": stamp(finished), **metadata}
    bill: Part = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, reference(manifest.sha256)).urn,
        "version": 1,
        "metadata": metadata,
        "components": [rows(item) for item in dossier.datasets],
        "dependencies": [
            {
                "ref": reference(manifest.sha256),
                "dependsOn": [rows_reference(item) for item in dossier.datasets],
            }
        ],
        "formulation": [formulation(dossier)],
    }
    written = (visible_json(json.dumps(bill, indent=1, ensure_ascii=False)) + "\n").encode()
    if len(written) > MAX_BYTES:
        raise IntegrityError(
            "LIMIT",
            f"the bill would have {len(written)} bytes, at most {MAX_BYTES} are read",
            fix="export the statement instead: `--to intoto`",
        )
    return written


def manifest_of_bom(data: bytes) -> bytes:
    """The exact bytes of the manifest in a bill that `bom` wrote.

    Raises:
        IntegrityError: `BAD_JSON`; `WRONG_TYPE` if it is no such bill; `MISSING_LINEAGE` if it holds no manifest, or
            several; `DIGEST_MISMATCH` if the bill names another digest; `BAD_BOM` if what it shows is not what the
            manifests inside say; or what `Manifest.parse` and `walk` raise.
    """
    bill = _bill(data)
    found = [*_attached(bill, "outputs")]
    if len(found) != 1:
        raise IntegrityError(
            "MISSING_LINEAGE", f"the bill holds {len(found)} manifests of the model, expected one"
        )
    payload = found[0]
    manifest = Manifest.parse(payload)
    named = _named(bill)
    actual = hashlib.sha256(payload).hexdigest()
    if named != actual:
        raise IntegrityError(
            "DIGEST_MISMATCH",
            f"the manifest in the bill has the digest {actual}, the bill names {named or 'none'}",
        )
    check_view(bill, manifest, _ancestors(bill))
    return payload


def ancestors_of_bom(data: bytes) -> dict[str, bytes]:
    """The exact bytes of the ancestors' manifests in a bill, by their SHA-256: with the manifest, the whole graph.

    Raises:
        IntegrityError: `BAD_JSON`; `WRONG_TYPE` if it is no bill; or what `Manifest.parse` raises.
    """
    return _ancestors(_bill(data))


def _ancestors(bill: dict[str, Json]) -> dict[str, bytes]:
    found = {hashlib.sha256(each).hexdigest(): each for each in _attached(bill, "inputs")}
    for digest, payload in found.items():
        Manifest.parse(payload, path=f"{ANCESTORS}/{digest}.json")
    return found


def check_bom(data: bytes) -> None:
    """Hold a bill against the strict schema of CycloneDX 1.7, with CycloneDX's own validator.

    Raises:
        MissingExtra: the validator is not installed.
        IntegrityError: `BAD_BOM`, with the first thing that is wrong.
    """
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError as error:
        raise MissingExtra(
            "checking a bill of materials needs CycloneDX's validator",
            fix="pip install 'reuselib[bom]'",
        ) from error
    validator: Any = JsonStrictValidator(SchemaVersion.V1_7)
    wrong: Any = validator.validate_str(data.decode("utf-8", "replace"))
    if wrong is not None:
        found: Any = wrong.data
        place = "/".join(map(str, getattr(found, "absolute_path", ())))
        why = str(getattr(found, "message", found))
        raise IntegrityError("BAD_BOM", f"{place or 'the bill'}: {why[:500]}")


def _bill(data: bytes) -> dict[str, Json]:
    bill = canonical.loads(data, path="bill of materials", limit=MAX_BYTES)
    if not isinstance(bill, dict) or bill.get("bomFormat") != "CycloneDX":
        raise IntegrityError("WRONG_TYPE", "this is no CycloneDX bill of materials")
    return bill


def _attached(bill: dict[str, Json], side: str) -> Iterator[bytes]:
    """Manifests among the inputs or the outputs of any run."""
    for formula in _objects(bill.get("formulation")):
        for run in _objects(formula.get("workflows")):
            for each in _objects(run.get(side)):
                attachment = each.get("data")
                if isinstance(attachment, dict) and attachment.get("contentType") == STATEMENT:
                    yield _decoded(attachment)


def _decoded(attachment: dict[str, Any]) -> bytes:
    content = attachment.get("content")
    if attachment.get("encoding") != "base64" or not isinstance(content, str):
        raise IntegrityError("WRONG_TYPE", "a manifest in the bill is not in base64")
    try:
        payload = base64.b64decode(content, validate=True)
    except ValueError as error:  # also of characters beyond ASCII
        raise IntegrityError(
            "WRONG_TYPE", f"a manifest in the bill is not in base64: {error}"
        ) from error
    if base64.b64encode(payload).decode() != content:  # one text for the same bytes, and no other
        raise IntegrityError("WRONG_TYPE", "a manifest in the bill is not in plain base64")
    return payload


def _named(bill: dict[str, Json]) -> str:
    """The digest of the manifest that the bill names beside the model."""
    metadata = bill.get("metadata")
    component = metadata.get("component") if isinstance(metadata, dict) else None
    about: Any = component if isinstance(component, dict) else {}
    for link in _objects(about.get("externalReferences")):
        if link.get("type") == "attestation":
            hashes = [*_objects(link.get("hashes"))]
            return next((str(h.get("content")) for h in hashes if h.get("alg") == "SHA-256"), "")
    return ""


def _objects(value: Json) -> Iterator[dict[str, Json]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, dict))
