"""Where a derivation was computed: an allow-list of facts, so that nothing private can slip into a manifest.

No host or user names, paths or environment variables. torch is asked only if it is loaded already.
"""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.lineage.hashing import num_cores

if TYPE_CHECKING:
    from reuselib.adapter import Json

PACKAGES = (
    "reuselib",
    "torch",
    "transformers",
    "peft",
    "torch-pruning",
    "accelerate",
    "datasets",
    "safetensors",
    "tokenizers",
    "numpy",
)
"""Packages that can change the weights that come out."""

_INSTRUCTION_SETS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "bf16",
    "sve",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute; the ones not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Json]:
    """The machine and the software, as plain JSON."""
    facts: dict[str, Json] = {
        "versions": dict(versions()),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": num_cores(),
        "cpu": processor(),
    }
    # Never loaded for this: a repeated run must stay a matter of a moment.
    if "torch" in sys.modules:
        facts["torch"] = _torch()
    return facts


def processor() -> dict[str, Json]:
    """What computes, and with which instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {"model": platform.processor()}
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return {
        "model": model[1] if model else platform.processor(),
        "instructionSets": [name for name in _INSTRUCTION_SETS if name in present],
    }


def _torch() -> dict[str, Json]:
    import torch

    facts: dict[str, Json] = {
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    # Counting the devices would set up a context; whoever computed on one has done that already.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = torch.version.cuda
    return facts
