"""Adapt pre-trained models, and keep the evidence with them.

Everything public is reached from here and loaded when it is first used, so that `import reuselib` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.adapter import Adapted as Adapted
    from reuselib.adapter import Adapter as Adapter
    from reuselib.adapter import Finding as Finding
    from reuselib.adapter import ModelRef as ModelRef
    from reuselib.adapter import Run as Run
    from reuselib.adapters.distill import Distill as Distill
    from reuselib.adapters.finetune import FineTune as FineTune
    from reuselib.adapters.lora import LoRA as LoRA
    from reuselib.adapters.merge import Merge as Merge
    from reuselib.adapters.prune import Prune as Prune
    from reuselib.adapters.quantize import Quantize as Quantize
    from reuselib.adapters.sparsify import Sparsify as Sparsify
    from reuselib.calibration.plan import Calibration as Calibration
    from reuselib.data import Data as Data
    from reuselib.data import Splits as Splits
    from reuselib.derivation.comparing import compare_models as compare_models
    from reuselib.derivation.derive import Runtime as Runtime
    from reuselib.derivation.derive import derive as derive
    from reuselib.errors import ReuseError as ReuseError
    from reuselib.evidence.audit import audit as audit
    from reuselib.evidence.loading import load as load
    from reuselib.evidence.prove import prove as prove
    from reuselib.evidence.reproduce import reproduce as reproduce
    from reuselib.evidence.windows import Window as Window
    from reuselib.exchange.export import export as export
    from reuselib.forensics.diff import diff as diff
    from reuselib.forensics.kin import kin as kin
    from reuselib.forensics.trace import trace as trace
    from reuselib.forensics.trace import trace_store as trace_store
    from reuselib.lineage.manifest import Manifest as Manifest
    from reuselib.lineage.policy import Policy as Policy
    from reuselib.lineage.verify import verify as verify
    from reuselib.measure.gates import Gate as Gate
    from reuselib.model import Model as Model
    from reuselib.recipe import Recipe as Recipe
    from reuselib.scanning.scan import scan as scan
    from reuselib.signing.keys import make_keys as make_keys
    from reuselib.signing.sign import sign as sign
    from reuselib.task import Task as Task
    from reuselib.tasks.causal_lm import CausalLM as CausalLM
    from reuselib.tasks.image_classification import ImageClassification as ImageClassification
    from reuselib.tasks.module import ModuleTask as ModuleTask
    from reuselib.tasks.text_classification import TextClassification as TextClassification
    from reuselib.training.lessons import Losses as Losses
    from reuselib.training.plan import EarlyStopping as EarlyStopping
    from reuselib.training.plan import FitPlan as FitPlan
    from reuselib.training.plan import Optimizer as Optimizer
    from reuselib.training.plan import ParameterGroup as ParameterGroup
    from reuselib.training.plan import Schedule as Schedule

__version__ = "0.1.0"

_EXPORTS = {
    "Adapted": "adapter",
    "Adapter": "adapter",
    "Calibration": "calibration.plan",
    "CausalLM": "tasks.causal_lm",
    "Data": "data",
    "Distill": "adapters.distill",
    "EarlyStopping": "training.plan",
    "FineTune": "adapters.finetune",
    "Finding": "adapter",
    "FitPlan": "training.plan",
    "Gate": "measure.gates",
    "ImageClassification": "tasks.image_classification",
    "LoRA": "adapters.lora",
    "Losses": "training.lessons",
    "Manifest": "lineage.manifest",
    "Merge": "adapters.merge",
    "Model": "model",
    "ModelRef": "adapter",
    "ModuleTask": "tasks.module",
    "Optimizer": "training.plan",
    "ParameterGroup": "training.plan",
    "Policy": "lineage.policy",
    "Prune": "adapters.prune",
    "Quantize": "adapters.quantize",
    "Recipe": "recipe",
    "ReuseError": "errors",
    "Run": "adapter",
    "Runtime": "derivation.derive",
    "Schedule": "training.plan",
    "Sparsify": "adapters.sparsify",
    "Splits": "data",
    "Task": "task",
    "TextClassification": "tasks.text_classification",
    "Window": "evidence.windows",
    "audit": "evidence.audit",
    "compare_models": "derivation.comparing",
    "derive": "derivation.derive",
    "diff": "forensics.diff",
    "export": "exchange.export",
    "kin": "forensics.kin",
    "load": "evidence.loading",
    "make_keys": "signing.keys",
    "prove": "evidence.prove",
    "reproduce": "evidence.reproduce",
    "scan": "scanning.scan",
    "sign": "signing.sign",
    "trace": "forensics.trace",
    "trace_store": "forensics.trace",
    "verify": "lineage.verify",
}
"""Public name -> the module that defines it, inside this package."""

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
