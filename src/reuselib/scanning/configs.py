"""What configurations ask of those who load them: code from elsewhere, other repositories, files outside the folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError
from reuselib.lineage import canonical
from reuselib.scanning.hazards import Hazard
from reuselib.scanning.templates import escapes, templates_of

if TYPE_CHECKING:
    from reuselib.adapter import Json

_IMPLEMENTATIONS = frozenset({
    None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "paged_attention", "batched_mm",
    "grouped_mm", "torch", "xla", "fast", "auto",
})  # fmt: skip
"""What transformers has itself; anything else is a repository whose code it would fetch and run."""
_OWN_CLASSES = ("sentence_transformers.", "torch.nn.modules.", "torch.nn.", "transformers.")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\.[A-Z]\w*")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FOREIGN = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)--[\w.]+")
_REPO_KEYS = re.compile(r".*(name_or_path|repo_id|repo_name|pretrained_model|hub_model_id)")
_CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "_target_", "remote_code", "code_revision"})
_CLASS_KEYS = re.compile(r".*(class|type|module|impl|_fn|function|activation_fct)")
_RAW = re.compile(
    rb'"(auto_map|trust_remote_code|custom_pipelines|_target_|\w*_implementation\w*)"\s*:\s*'
    rb"(?!null|false)[^,}\]]{0,80}"
)


def search(data: bytes, path: str) -> Iterator[Hazard]:
    """Hazards of one JSON file, at any depth."""
    try:
        value = canonical.loads(data, path=path)
    except IntegrityError as error:
        # Readers differ in what they make of it, so every reading is suspected.
        yield Hazard("AMBIGUOUS_JSON", path, error.what.removeprefix("BAD_JSON: "))
        for found in _RAW.finditer(data):
            text = found[0].decode("utf-8", "replace")
            yield Hazard("REMOTE_CODE", path, f"may ask for code of its own: {_shown(text)}")
        return
    yield from _walk(value, path, "")
    if path.endswith(".index.json") and isinstance(value, dict):
        yield from _targets(value.get("weight_map"), path)


def _walk(value: Json, path: str, place: str) -> Iterator[Hazard]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, path, f"{place}[{index}]")
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        where = f"{place}.{key[:80]}" if place else key[:80]
        yield from _judge(key, item, path, where)
        if key == "chat_template":
            yield from _judge_templates(item, path, where)
        elif key.lower() not in _CODE_KEYS:  # those are told as a whole
            yield from _walk(item, path, where)


def _judge(key: str, item: Json, path: str, where: str) -> Iterator[Hazard]:
    low = key.lower()
    shown = f"`{where}: {_shown(item)}`"
    if low in _CODE_KEYS and item not in (None, {}, [], "", False):
        yield Hazard("REMOTE_CODE", path, f"{shown} names code that is run with the model")
    elif low == "trust_remote_code" and item not in (None, False):
        yield Hazard("REMOTE_CODE", path, f"{shown} asks to run code from a repository")
    elif "_implementation" in low and _asks_for_kernels(item):
        yield Hazard("REMOTE_CODE", path, f"{shown} may fetch an implementation and run it")
    elif low == "class_name" and item == "Lambda":
        yield Hazard("REMOTE_CODE", path, f"{shown} is a layer that holds code")
    elif isinstance(item, str):
        yield from _judge_text(low, item, path, shown)


def _judge_text(key: str, item: str, path: str, shown: str) -> Iterator[Hazard]:
    if _FOREIGN.fullmatch(item):
        yield Hazard("REMOTE_CODE", path, f"{shown} names code of another repository")
    elif _REPO_KEYS.fullmatch(key):
        if item.startswith(("/", "~", "\\\\")) or re.match(r"[A-Za-z]:[\\/]", item):
            yield Hazard("LOCAL_PATH", path, f"{shown} is a path of the machine it was made on")
        elif _REPO.fullmatch(item):
            yield Hazard("FOREIGN_REPO", path, f"{shown} names another repository")
    elif _CLASS_KEYS.fullmatch(key) and _PATH.fullmatch(item) and not item.startswith(_OWN_CLASSES):
        yield Hazard("CLASS_PATH", path, f"{shown} names a class that may be imported")


def _asks_for_kernels(item: Json) -> bool:
    if isinstance(item, dict):
        return any(_asks_for_kernels(each) for each in item.values())
    return not isinstance(item, bool) and (isinstance(item, list) or item not in _IMPLEMENTATIONS)


def _judge_templates(item: Json, path: str, where: str) -> Iterator[Hazard]:
    for template in templates_of(item):
        yield from judge_template(template, path, f"`{where}`")


def judge_template(template: str, path: str, where: str = "it") -> Iterator[Hazard]:
    """What to say about one chat template."""
    if why := escapes(template):
        yield Hazard("TEMPLATE_CODE", path, f"{where} is a template that tries {why}")
    elif template.strip():
        yield Hazard(
            "CHAT_TEMPLATE",
            path,
            f"{where} is a program of {len(template)} characters that shapes every conversation; read it",
        )


def _targets(weight_map: Json, path: str) -> Iterator[Hazard]:
    if not isinstance(weight_map, dict):
        return
    for target in sorted({str(item) for item in weight_map.values()}):
        parts = PurePosixPath(target)
        if parts.is_absolute() or ".." in parts.parts or "\\" in target or ":" in target:
            yield Hazard(
                "UNSAFE_TARGET", path, f"its weights are in {_shown(target)}, outside the folder"
            )


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str)
    text = text.encode("unicode_escape").decode()
    return text if len(text) <= 100 else f"{text[:97]}..."
