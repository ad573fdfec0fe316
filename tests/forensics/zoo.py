"""Tiny models that were made from one another by plain torch, so that what finds out is held against what was done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reuselib.testing.tiny import tiny_bert, tiny_rows

Weights = dict[str, Tensor]
WEIGHTS = "model.safetensors"


def weights(folder: Path) -> Weights:
    return load_file(folder / WEIGHTS)


def made_from(parent: Path, folder: Path, change: Callable[[Weights], Weights]) -> Path:
    """A copy of a model with other weights and no record."""
    shutil.copytree(parent, folder, ignore=shutil.ignore_patterns("*.safetensors", "lineage"))
    changed = change({name: value.clone() for name, value in weights(parent).items()})
    save_file({name: value.contiguous() for name, value in changed.items()}, folder / WEIGHTS)
    return folder


def matrices(values: Weights, *, blocks_only: bool = True) -> list[str]:
    """The linear layers of a BERT."""
    return [
        name
        for name, value in values.items()
        if value.ndim == 2 and (".layer." in name or not blocks_only)
    ]


def trained(parent: Path, folder: Path, *, seed: int = 0, steps: int = 30, only: str = "") -> Path:
    """Fine-tuned by transformers and torch alone, with a classifier; `only` weights whose name holds that."""
    from transformers import AutoTokenizer, BertForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification.from_pretrained(parent, num_labels=2)
        tokenizer = AutoTokenizer.from_pretrained(parent)
        rows = tiny_rows(32, seed=seed)
        batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
        labels = torch.tensor([int(row["label"] == "good") for row in rows])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(only in name)
        learning = [each for each in model.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=2e-4)
        for _ in range(steps):
            optimizer.zero_grad()
            model(**batch, labels=labels).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def low_rank(values: Weights, *, rank: int = 2, seed: int = 0) -> Weights:
    """What merging a LoRA leaves."""
    draw = torch.Generator().manual_seed(seed)
    for name in matrices(values):
        rows, columns = values[name].shape
        up, down = (torch.randn(*size, generator=draw) for size in ((rows, rank), (rank, columns)))
        values[name] = values[name] + 0.003 * up @ down
    return values


def masked(values: Weights, *, share: float = 0.5) -> Weights:
    """The smallest weights of each linear layer set to zero."""
    for name in matrices(values):
        size = values[name].abs().flatten()
        limit = size.kthvalue(int(share * size.numel())).values
        values[name][values[name].abs() <= limit] = 0.0
    return values


def int8(values: Weights) -> Weights:
    """Linear layers as compressed-tensors lays out `int-quantized`, rounded to the nearest."""
    for name in matrices(values):
        step = values[name].abs().amax(dim=1, keepdim=True) / 127
        values[name + "_scale"] = step
        values[name] = (values[name] / step).round().clamp(-128, 127).to(torch.int8)
    return values


def int4(values: Weights) -> Weights:
    """Linear layers packed: eight codes of 4 bits in each 32-bit integer, groups of 16 columns."""
    for name in matrices(values):
        weight = values.pop(name)
        groups = weight.unflatten(1, (-1, 16))
        step = groups.abs().amax(dim=2) / 7
        codes = (groups / step.unsqueeze(2)).round().clamp(-8, 7).flatten(1).to(torch.int64) + 8
        words = sum(codes[:, at::8] << (4 * at) for at in range(8))
        words = torch.where(words >= 1 << 31, words - (1 << 32), words)
        values[name + "_packed"] = words.to(torch.int32)
        values[name + "_scale"] = step
        values[name + "_shape"] = torch.tensor(weight.shape)
    return values


def half(values: Weights) -> Weights:
    return {name: value.bfloat16() for name, value in values.items()}


def cut(values: Weights) -> Weights:
    """Every second neuron of the feed-forward layers taken out."""
    for name in [*values]:
        if ".intermediate.dense." in name:
            values[name] = values[name][::2]
        elif ".output.dense.weight" in name and ".attention." not in name:
            values[name] = values[name][:, ::2]
    return values


def shallower(values: Weights, *, gone: int = 0) -> Weights:
    """A block taken out, and those behind it numbered anew."""
    kept: Weights = {}
    for name, value in values.items():
        front, layer, rest = name.partition(".layer.")
        number, dot, rest = rest.partition(".")
        if not layer:
            kept[name] = value
        elif int(number) != gone:
            kept[f"{front}{layer}{int(number) - (int(number) > gone)}{dot}{rest}"] = value
    return kept


def renamed(values: Weights) -> Weights:
    return {f"model.{name}": value for name, value in values.items()}


def lora(base: Path, folder: Path, *, rank: int = 4) -> Path:
    """An update as peft writes it."""
    folder.mkdir()
    update: Weights = {}
    for name in matrices(weights(base)):
        rows, columns = weights(base)[name].shape
        front = f"base_model.model.{name.removesuffix('.weight')}"
        update[f"{front}.lora_A.weight"] = torch.ones(rank, columns)
        update[f"{front}.lora_B.weight"] = torch.ones(rows, rank)
    save_file(update, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return folder


def base(folder: Path, *, seed: int = 0, num_layers: int = 3) -> Path:
    return tiny_bert(folder, seed=seed, num_layers=num_layers)
