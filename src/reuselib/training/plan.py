"""How long, how fast and in which order to train: plain values, shared by every adapter that learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), fused where torch has it."""

    weight_decay: float = 0.0
    """Decoupled decay; never applied to biases and normalisation weights."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    max_grad_norm: float | None = 1.0
    """Clip the global gradient norm to this; null for no clipping."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate moves over the optimizer steps."""

    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: float = 0.0
    """Steps of linear warm-up; a value below 1 is a share of all steps."""


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop when the validation metric no longer improves, and keep the best weights seen."""

    patience: int = 1
    """Epochs without improvement that are allowed."""
    min_delta: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """How to train.

    On a CPU the same plan gives the same weights; without dropout also whatever the number of processes, each of which
    draws masks of its own.
    """

    epochs: int = 3
    max_steps: int | None = None
    """Optimizer steps at which to stop, whatever `epochs` says."""
    batch_size: int = 32
    """Rows per optimizer step, over all processes and accumulated micro-batches."""
    gradient_accumulation_steps: int = 1
    """Micro-batches that make one optimizer step; the loss is averaged over the targets of all of them."""
    learning_rate: float = 5e-5
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 autocast over fp32 weights where the hardware multiplies bf16 natively, otherwise fp32."""
    group_by_length: bool = True
    """Batch rows of like length together, shuffled anew each epoch: less padding, same rows."""
    early_stopping: EarlyStopping | None = None
    frozen: Literal["train", "eval"] = "train"
    """Mode of the blocks below the first that learns: `eval` has no dropout there, so that what they give is computed
    once and used in every epoch."""
    packing: bool = False
    """Lay several short rows one after another where they would be padded; none of them sees another."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a moment to start learning."""

    names: tuple[str, ...]
    lr_scale: float = 1.0
    """Factor on the plan's learning rate."""
    from_epoch: int = 0
    """Epoch from which these parameters learn; frozen before."""
