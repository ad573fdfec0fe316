"""Children made of a few small tensors, written by the reference writer rather than by ours."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from reuselib.lineage.definition import Definition, Internal
from reuselib.lineage.descriptors import Descriptor, Parent
from reuselib.lineage.details import Details
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.record import Draft, record

CHILD_ID = "c0ffee" + "0" * 58


def draft_of(parent: Manifest, name: str = "child") -> Draft:
    """A LoRA child of a model."""
    model = Parent("base", "base", "file:base", parent.digests, parent.sha256)
    rows = Descriptor(name="data", role="dataset", uri="sample:x", digest={"rowsHash1": "1" * 64})
    return Draft(
        name,
        Definition(
            relation="adapter",
            adapter="lora",
            recipe={"r": 8, "lora_alpha": 16, "fit": {"learning_rate": 5e-4}},
            task={"text_classification": {"text": "text"}},
            data={"source": "sample:x"},
            seed=7,
            internal=Internal(
                derivation_id=CHILD_ID, fresh=("head.weight",), facts={"order": "ab"}
            ),
            dependencies=(*model.descriptors(), rows),
        ),
        Details(
            versions={"python": "3.11.7"},
            started=datetime(2026, 1, 31, 12, tzinfo=UTC),
            finished=datetime(2026, 1, 31, 13, tzinfo=UTC),
            invocation_id="urn:uuid:1",
        ),
    )


def write_child(
    folder: Path, draft: Draft, ancestors: dict[str, bytes], **options: Any
) -> Manifest:
    """Payload and record of a child that holds only its adapter."""
    folder.mkdir(exist_ok=True)
    save_file(
        {"lora_A": np.arange(8, dtype=np.float64), "lora_B": np.zeros((2, 4), dtype=np.float32)},
        folder / "adapter_model.safetensors",
    )
    (folder / "config.json").write_text('{"r": 8}')
    return record(
        folder,
        draft,
        metrics={"after": {"accuracy": 0.5}},
        environment={"system": "Linux"},
        ancestors=ancestors,
        **options,
    )
