"""What the outputs of the lower part of a network depend on: the key under which they are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reuselib.errors import TrainingError
from reuselib.lineage import canonical
from reuselib.lineage.tensors import dtype_codes
from reuselib.network.parts import within
from reuselib.training.notebook import encoding_digest
from reuselib.training.trail import tensor_digests

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.adapter import Json
    from reuselib.training.cut import Cut
    from reuselib.training.search import Site

FORM = 1
"""Of what is kept; part of every key, so that another form is another key."""


def subject(site: Site, cut: Cut) -> dict[str, Json]:
    """All of it, as plain JSON.

    The number of threads is part of it, because how a sum is divided among them decides its last bits: what is found
    on the disk must be what would be computed.
    """
    import torch

    assert site.job.shelf is not None
    job = site.job
    return {
        "form": FORM,
        "rows": job.shelf.rows,
        "encoding": encoding_digest(job.task, job.processor, job.train),
        "network": _network(site.module, cut),
        "cut": cut.at.name,
        "frozen": site.plan.frozen,
        "precision": site.precision,
        "machine": [
            site.accelerator.device.type,
            f"torch {torch.__version__}",
            torch.backends.cpu.get_cpu_capability(),
            torch.get_num_threads(),
        ],
    }


def _network(module: nn.Module, cut: Cut) -> str:
    """Digest of the lower part: the form of its modules, the configuration, and every tensor."""
    tensors = _lower(module, cut)
    known = dtype_codes()
    odd = [name for name, each in tensors.items() if each.dtype not in known]
    if odd:
        raise TrainingError(f"{odd[0]} has no bytes of its own that could be told from others")
    described: dict[str, Json] = {
        "modules": {
            call.name: f"{type(call.module).__qualname__}: {call.module}" for call in cut.finished
        },
        "config": _config(module),
        "tensors": [
            [row.name, row.dtype, list(row.shape), row.sha256] for row in tensor_digests(tensors)
        ],
    }
    return hashlib.sha256(canonical.dumps(described)).hexdigest()


def _lower(module: nn.Module, cut: Cut) -> dict[str, Tensor]:
    """Tensors that the lower part may use: all but those of modules that are first called at the cut or after it."""
    upper = tuple(cut.above)
    found: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        if any(within((name,), upper)):
            continue
        found |= {f"{name}.{key}": each for key, each in part.named_parameters(recurse=False)}
        found |= {f"{name}.{key}": each for key, each in part.named_buffers(recurse=False)}
    return found


def _config(module: nn.Module) -> str:
    """The settings that a network of transformers is built from, without where it lies."""
    for part in module.modules():
        config: Any = part.__dict__.get("config")
        if hasattr(config, "to_json_string"):
            settings: Mapping[str, Any] = config.to_dict()
            kept = {name: settings[name] for name in sorted(settings) if "name_or_path" not in name}
            return repr(kept)
    return ""
