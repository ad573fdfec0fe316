"""The JSON Schema of the manifest, for checks without reuselib: what it refuses, `Manifest.parse` refuses too.

The converse does not hold: a schema cannot say that bytes are canonical or that parts agree with one another.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from reuselib.adapter import Json


def manifest_schema() -> dict[str, Json]:
    """The schema (JSON Schema 2020-12) that is part of the package, as `lineage/manifest.schema.json`."""
    data = (files("reuselib.lineage") / "manifest.schema.json").read_text(encoding="utf-8")
    return cast("dict[str, Json]", json.loads(data))
