"""Whether opening a model folder would execute code. Nothing here imports torch or transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reuselib.errors import SourceError, UnsafeModel

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
_WEIGHTS = "model.safetensors"
_CONFIGURATIONS = (
    "config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)
"""The files in which transformers looks for names of code."""


def refuse_unsafe(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Check that reading the folder with transformers runs no code from it.

    Raises:
        UnsafeModel: a configuration names code or a kernel to fetch, or the only weights are pickles.
        SourceError: the folder is not there, holds no model, or a configuration is not JSON.
    """
    if not (folder / "config.json").is_file():
        _explain_missing(folder)
    if not trust_remote_code:
        for path in (folder / name for name in _CONFIGURATIONS):
            if path.is_file():
                _refuse_code(path)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles and not any(folder.glob("*.safetensors")):
        raise UnsafeModel(
            f"the weights of '{folder.name}' are a pickle ({pickles[0]}); opening one executes what is in it",
            expected="safetensors",
            fix="take a revision with safetensors, or convert it where you trust its origin",
        )


def weight_names(folder: Path) -> list[str]:
    """Names of the tensors in the folder's safetensors files, as transformers picks the files.

    Raises:
        SourceError: there are none.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / f"{_WEIGHTS}.index.json"
    if (folder / _WEIGHTS).is_file():
        files = [_WEIGHTS]
    elif index.is_file():
        return sorted(read_json(index)["weight_map"])
    else:
        raise SourceError(
            f"'{folder.name}' holds no weights",
            expected=f"{_WEIGHTS}, or {index.name} and the files it lists",
            fix="check that the download is complete",
        )
    names: list[str] = []
    for file in files:
        try:
            with safe_open(folder / file, framework="numpy") as tensors:
                names.extend(tensors.keys())
        except SafetensorError as error:
            raise SourceError(
                f"'{folder.name}/{file}' cannot be read: {error}",
                expected="a whole safetensors file",
                fix="download it again",
            ) from error
    return names


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        SourceError: the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(
            f"'{path.parent.name}/{path.name}' is not JSON: {error}",
            expected="a JSON object",
            fix="download it again",
        ) from error
    if not isinstance(content, dict):
        raise SourceError(
            f"'{path.parent.name}/{path.name}' holds {type(content).__name__}",
            expected="a JSON object",
        )
    return content


def _refuse_code(path: Path) -> None:
    for key, value in _walk(read_json(path)):
        if key == "auto_map":
            raise UnsafeModel(
                f"{path.name} of '{path.parent.name}' names code to be executed: auto_map = {value}",
                expected="a model whose class is part of transformers",
                fix="read the code, then set `trust_remote_code: true` on this model",
            )
        # Such a name makes transformers fetch a compiled kernel from the hub and load it.
        if key.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
            raise UnsafeModel(
                f"{path.name} of '{path.parent.name}' names a kernel to be fetched: {key} = {value}",
                expected="an implementation that is part of transformers, such as 'sdpa'",
                fix=f"remove {key}, or set `trust_remote_code: true` on this model",
            )


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)


def _explain_missing(folder: Path) -> None:
    if not folder.is_dir():
        raise SourceError(
            f"there is no folder '{folder.name}'",
            expected="a model folder",
            fix="check the path",
        )
    if (folder / "adapter_config.json").is_file():
        what = f"'{folder.name}' holds a peft adapter, not a whole model"
        fix = "open the base model it names and put the adapter on it, or merge the two first"
    else:
        what = f"'{folder.name}' holds no config.json"
        fix = "check the path; a model folder of transformers has a config.json"
    raise SourceError(what, expected="a model folder", fix=fix)
