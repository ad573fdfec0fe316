"""The weights files of a network of transformers, written a tensor at a time: the same bytes as `save_pretrained`'s."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reuselib.lineage.disk import write_file
from reuselib.lineage.layout import Layout, write_laid_out

if TYPE_CHECKING:
    from torch import Tensor

Tensors: TypeAlias = "Iterable[tuple[str, Tensor]]"

SHARD = "50GB"
"""The most that one file holds."""
_METADATA = {"format": "pt"}


def write_weights(module: Any, folder: Path, tensors: Tensors) -> None:
    """Write the files that `module.save_pretrained(folder)` would write if it held these tensors.

    Args:
        module: on the meta device.
        folder: where to.
        tensors: see `Task.write`.
    """
    from transformers import modeling_utils
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

    state = module.state_dict()
    for name in module._keys_to_ignore_on_save or ():
        state.pop(name, None)
    saved = modeling_utils.remove_tied_weights_from_state_dict(state, module)
    pattern = SAFE_WEIGHTS_NAME.replace(".safetensors", "{suffix}.safetensors")
    shards = modeling_utils.split_torch_state_dict_into_shards(
        saved, filename_pattern=pattern, max_shard_size=SHARD
    )
    layouts = [
        Layout.of(folder / file, {name: saved[name] for name in names}, _METADATA)
        for file, names in shards.filename_to_tensors.items()
    ]
    write_laid_out(layouts, tensors, aliases=_aliases(module, set(saved)))
    if shards.is_sharded:
        index = {
            "metadata": {"total_parameters": module.num_parameters(), **shards.metadata},
            "weight_map": shards.tensor_to_filename,
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        write_file(folder / SAFE_WEIGHTS_INDEX_NAME, text.encode())


def _aliases(module: Any, saved: set[str]) -> dict[str, str | None]:
    """By every other name, the one under which the tensor is saved; None for what is not saved at all."""
    state = module.state_dict(keep_vars=True)
    kept = {id(state[name]): name for name in saved}
    return {name: kept.get(id(each)) for name, each in state.items() if name not in saved}
