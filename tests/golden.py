"""Where the golden folders are: small models, one for each relation and adapter, that any test may read."""

from __future__ import annotations

from pathlib import Path

GOLDENS = Path(__file__).parent / "goldens"
MODELS = GOLDENS / "models"
CHILDREN = sorted(path.parents[1].name for path in MODELS.glob("*/lineage/manifest.json"))
"""Those with a record: all but the bases."""


def golden(name: str) -> Path:
    return MODELS / name
