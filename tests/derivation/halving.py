"""A small adapter that compresses, so that tests of measuring need no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from reuselib.adapter import Adapted, Adapter, Finding


@dataclass(frozen=True, kw_only=True)
class Halve(Adapter):
    """Keep the first half of every feed-forward layer of a BERT."""

    kind: ClassVar[str] = "halve"
    relation: ClassVar[str] = "prune"

    def adapt(self, module, run):
        width = module.config.intermediate_size // 2
        for layer in module.bert.encoder.layer:
            inner, outer = layer.intermediate.dense, layer.output.dense
            with torch.no_grad():
                inner.weight = nn.Parameter(inner.weight[:width].clone())
                inner.bias = nn.Parameter(inner.bias[:width].clone())
                outer.weight = nn.Parameter(outer.weight[:, :width].clone())
            inner.out_features = outer.in_features = width
        module.config.intermediate_size = width
        return Adapted(module, stock=True)

    def rebuild(self, module, structure):
        return module

    def prove(self, parents, child, structure):
        yield Finding("half is left", True)
