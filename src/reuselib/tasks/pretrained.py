"""What the tasks share to read and write networks of transformers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.errors import SourceError
from reuselib.tasks.placing import Found, check_names, prefix_of, renamed_by
from reuselib.tasks.safety import refuse_unsafe, weight_names
from reuselib.tasks.sharding import SHARD, Tensors, write_weights
from reuselib.training.accelerating import read_by_all

if TYPE_CHECKING:
    from torch import nn

    from reuselib.task import Loaded, Processor

_LOCAL_KEYS = (
    "is_local",
    "local_files_only",
    "name_or_path",
    "_name_or_path",
    "special_tokens_map_file",
    "tokenizer_file",
    "vocab_file",
)
"""What transformers notes about where files came from: private, and different at each load."""


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The configuration in a folder, once the folder is known to execute nothing."""
    from transformers import AutoConfig

    refuse_unsafe(folder, trust_remote_code=trust_remote_code)
    with reading(folder):
        return AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )


def read_network(
    auto: Any, folder: Path, config: Any, *, trust_remote_code: bool, new_head: bool = False
) -> Loaded:
    """A network in fp32 with the folder's weights; its processor is None.

    Args:
        auto: a class such as `AutoModelForSequenceClassification`.
        folder: where the weights are.
        config: the configuration to build the network from.
        trust_remote_code: allow the folder's own code.
        new_head: initialise the head anew although the folder has one of the same shape.

    Raises:
        SourceError: weights are missing, left over or of another shape, other than those of the head.
    """
    import torch

    from reuselib.task import Loaded

    if (folder / "adapter_config.json").is_file():
        # Transformers would follow it to another model and load that one instead.
        raise SourceError(
            f"'{folder.name}' holds a peft adapter beside the model",
            expected="a model of its own",
            fix="merge the adapter, or open the two folders apart",
        )
    names = weight_names(folder)
    with reading(folder), read_by_all():
        module, report = auto.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
        )
    _move_out_of_file(module)
    mismatched = {name for name, *_ in report["mismatched_keys"]}
    missing = (set(report["missing_keys"]) | mismatched) & set(module.state_dict())
    prefix = prefix_of(module, names)
    found = Found(missing, mismatched, report["unexpected_keys"])
    check_names(folder, module, found, heads=head(module), bare=bool(prefix))
    if new_head:
        missing |= _renew_head(auto, config, module)
    renamed = renamed_by(getattr(module, "_weight_conversions", None) or (), module, names, prefix)
    return Loaded(module.eval(), None, frozenset(missing), prefix, renamed)


def skeleton(auto: Any, config: Any) -> nn.Module:
    """The network that a configuration describes, in fp32 and evaluation mode, with arbitrary weights."""
    import torch

    # The weights are replaced, so drawing them must not move the generator that others draw from.
    with torch.random.fork_rng(devices=[]), quiet():
        return auto.from_config(config, dtype=torch.float32).eval()


def save(module: Any, processor: Processor, folder: Path, tensors: Tensors | None = None) -> None:
    """Write weights (safetensors), configuration and processor, the same bytes for the same module.

    Args:
        module: to save.
        processor: to save with it; may be None.
        folder: where to.
        tensors: of a network on the meta device, those of its state, see `Task.write`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        # under the names that the network itself has: what was recorded is said in these
        if tensors is None:
            module.save_pretrained(folder, save_original_format=False, max_shard_size=SHARD)
        else:
            # all but the weights
            module.save_pretrained(folder, save_original_format=False, state_dict={})
            write_weights(module, folder, tensors)
        if processor is not None:
            _forget_last_call(processor)
            processor.save_pretrained(folder)
    for path in sorted(folder.glob("*config.json")):
        _forget_origin(path)


def head(module: nn.Module) -> tuple[str, ...]:
    """Names of the submodules with parameters that lie outside the base model.

    A wrapper around the network, such as peft's, is looked through.
    """
    name, network = _unwrap(module)
    base = getattr(network, "base_model", network)
    if base is network:
        return ()
    start = f"{name}." if name else ""
    return tuple(
        start + child_name
        for child_name, child in network.named_children()
        if child is not base and any(True for _ in child.parameters())
    )


def accepted_inputs(module: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the names that the network's `forward` takes."""
    accepted = inspect.signature(_unwrap(module)[1].forward).parameters
    return [name for name in names if name in accepted]


def _unwrap(module: nn.Module) -> tuple[str, nn.Module]:
    """The network of transformers in a module, and its name there; the module itself if there is none."""
    from transformers import PreTrainedModel

    for name, inner in module.named_modules():
        if isinstance(inner, PreTrainedModel):
            return name, inner
    return "", module


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing reports and bars: what matters in them is raised as an error."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what transformers raises on a bad folder into an error that says where."""
    from safetensors import SafetensorError

    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise SourceError(
            f"the model folder '{folder.name}' cannot be opened: {error}",
            expected="a folder that this version of transformers opens for this task",
            fix="check `model_type` in config.json, the task, and that the download is complete",
        ) from error


def _move_out_of_file(module: nn.Module) -> None:
    """Copy tensors that lie in the file's memory map, at whatever address, into memory of their own.

    A product of matrices differs in the last bits with the alignment of their memory, so a network would give other
    outputs before it is saved than after.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()


def _renew_head(auto: Any, config: Any, module: nn.Module) -> set[str]:
    """Give the module the head of a network just initialised; return the names of its tensors."""
    with quiet():
        twin = auto.from_config(config)
    renewed: set[str] = set()
    for name in head(module):
        state = twin.get_submodule(name).state_dict()
        module.get_submodule(name).load_state_dict(state)
        renewed.update(f"{name}.{key}" for key in state)
    return renewed


def _forget_last_call(processor: Processor) -> None:
    """A fast tokenizer carries the truncation of its last call into its file: reset it."""
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def _forget_origin(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in _LOCAL_KEYS}
    if kept != content:
        text = json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8", newline="\n")
