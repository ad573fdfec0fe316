"""A model's record as an SPDX 3.0.1 document in JSON-LD, with the classes of its AI, Dataset and Build profiles.

Conformance to the AI and Dataset profiles is not claimed: they demand who supplies a model and where it is downloaded,
and a record knows neither. What is not known is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from reuselib.errors import ReuseError
from reuselib.exchange import terms
from reuselib.exchange.components import APPROACHES, Part, limits
from reuselib.exchange.dossier import Dossier, flat, stamp, text
from reuselib.exchange.elements import CREATION, element, entries, hash_of, identity
from reuselib.lineage.definition import BUILD_TYPE
from reuselib.lineage.descriptors import Descriptor, Parent
from reuselib.lineage.manifest import MANIFEST
from reuselib.values.visible import visible_json

if TYPE_CHECKING:
    from reuselib.adapter import Json

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
SPEC = "3.0.1"
PROFILES = ("core", "software", "simpleLicensing", "build")
_DERIVED = ("base", "merge-source", "student-init")
"""Roles of parents whose weights went into the child; a teacher's did not."""


def spdx(dossier: Dossier) -> bytes:
    """The document. The same record always gives the same one.

    Raises:
        ReuseError: the record tells no time, which SPDX cannot do without.
    """
    time = dossier.manifest.details.finished
    if time is None:
        raise ReuseError(
            f"the record of {dossier.manifest.name} does not say when the model was made",
            expected="`finishedOn`, which SPDX cannot do without",
            fix="export to another form",
        )
    elements = list(_elements(dossier))
    document = {
        "@context": CONTEXT,
        "@graph": [
            {
                "type": "CreationInfo",
                "@id": CREATION,
                "specVersion": SPEC,
                "created": stamp(time),
                "createdBy": [_own(dossier, "reuselib")],
            },
            element(
                "SpdxDocument",
                _own(dossier, "document"),
                dossier.manifest.name,
                {
                    "profileConformance": list(PROFILES),
                    "rootElement": [_own(dossier, "sbom")],
                    "element": [each["spdxId"] for each in elements],
                },
            ),
            *elements,
        ],
    }
    return (visible_json(json.dumps(document, indent=1, ensure_ascii=False)) + "\n").encode()


def _elements(dossier: Dossier) -> Iterator[Part]:
    own = _model_id(dossier.manifest.sha256)
    yield element("SoftwareAgent", _own(dossier, "reuselib"), "reuselib")
    inside = [_model(dossier), *_files(dossier), *_ancestors(dossier), *_rows(dossier)]
    inside += [_build(dossier), *_licences(dossier), *_relationships(dossier)]
    yield element(
        "software_Sbom",
        _own(dossier, "sbom"),
        f"what {dossier.manifest.name} was made from",
        {
            "software_sbomType": ["build"],
            "rootElement": [own],
            "element": [each["spdxId"] for each in inside],
        },
    )
    yield from inside


def _model(dossier: Dossier) -> Part:
    manifest, figures = dossier.manifest, dossier.figures
    internal, finished = manifest.definition.internal, manifest.details.finished
    asked = [*flat(manifest.definition.recipe), ("seed", manifest.definition.seed)]
    told = " ".join(f"{each}." for each in limits(dossier))
    approach = APPROACHES.get(dossier.task)
    return element(
        "ai_AIPackage",
        _model_id(manifest.sha256),
        manifest.name,
        {
            "verifiedUsing": identity(manifest.digests.to_json()),
            "builtTime": stamp(finished) if finished else None,
            "software_primaryPurpose": "model",
            "software_packageVersion": internal.derivation_id if internal else None,
            "ai_hyperparameter": entries(asked),
            "ai_metric": entries(sorted(figures.after.items())),
            "ai_typeOfModel": [approach[0]] if approach else None,
            "ai_informationAboutTraining": f"{manifest.relation} by {manifest.definition.adapter}",
            "ai_limitation": told,
        },
    )


def _ancestors(dossier: Dossier) -> Iterator[Part]:
    for sha256, parent in dossier.parents.items():
        known = dossier.ancestors.get(sha256)
        yield element(
            "ai_AIPackage",
            _model_id(sha256),
            known.name if known else parent.name,
            {
                "verifiedUsing": identity(parent.digests.to_json()),
                "software_primaryPurpose": "model",
                "software_packageUrl": quote(parent.uri, safe=":/@#%?&=+")
                if parent.uri.startswith("pkg:")
                else None,
                "software_sourceInfo": parent.uri,
            },
        )


def _rows(dossier: Dossier) -> Iterator[Part]:
    kind = {"text": "text", "image": "image"}.get(APPROACHES.get(dossier.task, ("", ""))[1])
    for item in dossier.datasets:
        yield element(
            "dataset_DatasetPackage",
            _rows_id(dossier, item),
            item.uri or item.name,
            {
                "verifiedUsing": identity(item.digest),
                "software_primaryPurpose": "data",
                "software_sourceInfo": item.uri,
                "dataset_datasetType": [kind or "noAssertion"],
                "dataset_datasetSize": _size(item),
            },
        )


def _size(item: Descriptor) -> int | None:
    """Rows of all splits together, if the record counts them."""
    splits = item.annotations.get("splits")
    counts = [
        each.get("rows") if isinstance(each, dict) else None
        for each in (splits.values() if isinstance(splits, dict) else ())
    ]
    known = [count for count in counts if isinstance(count, int) and count >= 0]
    return sum(known) if known and len(known) == len(counts) else None


def _files(dossier: Dossier) -> Iterator[Part]:
    """The payload, and the manifest as evidence."""
    manifest = {MANIFEST: dossier.manifest.sha256}
    for name, digest in (*sorted(dossier.files.items()), *manifest.items()):
        yield element(
            "software_File",
            _file_id(dossier, name),
            name,
            {
                "verifiedUsing": [hash_of("sha256", digest)],
                "software_primaryPurpose": "evidence" if name == MANIFEST else "file",
            },
        )


def _build(dossier: Dossier) -> Part:
    manifest, details = dossier.manifest, dossier.manifest.details
    definition = manifest.definition
    asked = [("relation", manifest.relation), ("adapter", definition.adapter)]
    asked += [*flat(definition.recipe, "recipe"), *flat(definition.task or {}, "task")]
    asked += [*flat(definition.data or {}, "data"), ("seed", definition.seed)]
    return element(
        "build_Build",
        _own(dossier, "build"),
        f"{manifest.relation}: {definition.adapter}",
        {
            "build_buildType": BUILD_TYPE,
            "build_buildId": details.invocation_id,
            "build_buildStartTime": stamp(details.started) if details.started else None,
            "build_buildEndTime": stamp(details.finished) if details.finished else None,
            "build_parameter": entries(asked),
            "build_environment": entries(sorted(details.versions.items())),
        },
    )


def _licences(dossier: Dossier) -> Iterator[Part]:
    """One expression for each licence that is told of the model or of anything it was made from."""
    for name in sorted({licence for licence, _, _ in _licensed(dossier)}):
        yield element(
            "simplelicensing_LicenseExpression",
            _licence_id(dossier, name),
            name,
            {
                "simplelicensing_licenseExpression": terms.expression(name),
            },
        )


def _licensed(dossier: Dossier) -> Iterator[tuple[str, str, str]]:
    """Licence, what has it, and whether its publisher declared it or it was inherited."""
    about: list[tuple[Mapping[str, Json], str]] = [
        (dossier.manifest.annotations, _model_id(dossier.manifest.sha256))
    ]
    about += [(each.annotations, _model_id(sha256)) for sha256, each in dossier.parents.items()]
    about += [(item.annotations, _rows_id(dossier, item)) for item in dossier.datasets]
    for facts, subject in about:
        if licence := text(facts.get("license")):
            inherited = facts.get("license_source") == "inherited"
            yield licence, subject, "hasConcludedLicense" if inherited else "hasDeclaredLicense"


def _relationships(dossier: Dossier) -> Iterator[Part]:
    own, build = _model_id(dossier.manifest.sha256), _own(dossier, "build")
    parents = [_model_id(parent.manifest_sha256) for parent in dossier.manifest.parents]
    rows = [_rows_id(dossier, item) for item in dossier.datasets]
    links = [
        (own, "contains", [_file_id(dossier, name) for name in sorted(dossier.files)]),
        (own, "hasEvidence", [_file_id(dossier, MANIFEST)]),
        (own, "descendantOf", _derived(dossier.manifest.parents)),
        (build, "hasInput", [*dict.fromkeys([*parents, *rows])]),
        (build, "hasOutput", [own]),
        (own, "trainedOn", rows if dossier.manifest.definition.recipe.get("fit") else []),
        (own, "testedOn", rows if dossier.figures.test else []),
    ]
    links += [
        (_model_id(sha256), "descendantOf", _derived(known.parents))
        for sha256, known in dossier.ancestors.items()
    ]
    links += [
        (subject, how, [_licence_id(dossier, licence)])
        for licence, subject, how in _licensed(dossier)
    ]
    for number, (origin, how, targets) in enumerate(link for link in links if link[2]):
        yield {
            "type": "Relationship",
            "spdxId": _own(dossier, f"relationship-{number}"),
            "creationInfo": CREATION,
            "from": origin,
            "relationshipType": how,
            "to": targets,
        }


def _derived(parents: tuple[Parent, ...]) -> list[str]:
    made_of = (each for each in parents if each.role in _DERIVED)
    return [*dict.fromkeys(_model_id(each.manifest_sha256) for each in made_of)]


def _model_id(manifest_sha256: str) -> str:
    """The same in every document that speaks of the model."""
    return f"urn:reuselib:manifest:{manifest_sha256}"


def _own(dossier: Dossier, name: str) -> str:
    return f"{_model_id(dossier.manifest.sha256)}#{quote(name, safe='')}"


def _file_id(dossier: Dossier, name: str) -> str:
    return _own(dossier, f"file:{name}")


def _rows_id(dossier: Dossier, item: Descriptor) -> str:
    return _own(dossier, f"rows:{item.name}")


def _licence_id(dossier: Dossier, name: str) -> str:
    return _own(dossier, f"licence:{name}")
