"""The operations of a run in a file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from crash.writes import Operation


def write_recording(path: Path, log: Sequence[Operation]) -> None:
    """One line an operation."""
    with path.open("w", encoding="utf-8") as file:
        for each in log:
            data = base64.b64encode(each.data).decode()
            file.write(f"{json.dumps({**asdict(each), 'data': data})}\n")


def read_recording(path: Path) -> list[Operation]:
    """What `write_recording` wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        Operation(**{**fields, "data": base64.b64decode(fields["data"])})
        for fields in map(json.loads, lines)
    ]
