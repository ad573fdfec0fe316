"""Trainings for one process, and for two with a share of every weight each, which this becomes as a program."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from toys import Tokens, token_rows

from reuselib.adapter import Adapter
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.lora import LoRA
from reuselib.adapters.quantize import Quantize
from reuselib.data import Data
from reuselib.derivation.session import Encoded, Session
from reuselib.derivation.teacher import Teacher
from reuselib.errors import Interrupted
from reuselib.lineage.checkpoints import Checkpoints
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import save_tensors
from reuselib.lineage.trail import state_hash
from reuselib.model.opening import open_network
from reuselib.progress import Progress
from reuselib.task import Batch, Task
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.text_classification import TextClassification
from reuselib.training import precision
from reuselib.training.checkpointing import Saver
from reuselib.training.fitting import fit
from reuselib.training.interruption import Interruption
from reuselib.training.job import FitResult, Job
from reuselib.training.lessons import Losses
from reuselib.training.plan import EarlyStopping, FitPlan, Optimizer, ParameterGroup
from reuselib.training.seeds import seeded
from reuselib.training.shares import is_sharded
from reuselib.training.trail import Recorder, tensor_digests

WIDTH, NUM_TOKENS = 7, 50


class Block(nn.Module):
    """Weights of a length that two processes cannot halve, a single number that learns, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, 2 * WIDTH)
        self.outer = nn.Linear(2 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, values: Tensor) -> Tensor:
        """Values of each token, changed a little."""
        return self.norm(values + self.gain * self.outer(self.inner(values).relu()))


class Tower(nn.Module):
    """Embeds tokens and tags them; one matrix does both."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, NUM_TOKENS)
        self.head.weight = self.embedding.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of every token."""
        if self.training:
            self.seen += len(input_ids)  # differs between processes; that of the first counts
        values = self.embedding(input_ids) * attention_mask.unsqueeze(-1)
        for block in self.blocks:
            values = block(values)
        return self.head(values)


def tower() -> Tower:
    """The same weights every time; half of a matrix is zero, and one layer is frozen."""
    torch.manual_seed(0)
    module = Tower()
    with torch.no_grad():
        module.blocks[1].inner.weight[:, ::2] = 0.0
    module.blocks[0].outer.requires_grad_(False)
    return module


PLAN = FitPlan(
    epochs=3,
    batch_size=8,
    gradient_accumulation_steps=2,
    learning_rate=1e-2,
    optimizer=Optimizer(weight_decay=0.1, max_grad_norm=0.5),
    precision="fp32",
)
STOPPING = EarlyStopping(patience=5)


def train(
    plan: FitPlan, module: nn.Module | None = None, **settings: Any
) -> tuple[nn.Module, FitResult]:
    """Train the tower on 49 rows, which leaves a micro-batch of one row to share."""
    module = tower() if module is None else module
    settings = {"validation": token_rows(9, 1), **settings}
    job = Job(task=Tokens(), processor=None, train=token_rows(49), **settings)
    return module, fit(module, plan, job)


def everything() -> tuple[nn.Module, FitResult]:
    """Accumulation, gradual unfreezing, early stopping, clipping, decay, zeros that stay."""
    return train(
        PATIENT,
        groups=(ParameterGroup(("blocks.0.inner.weight", "blocks.0.inner.bias"), 0.5, 1),),
        sparse=("blocks.1.inner.weight",),
    )


def twice() -> tuple[nn.Module, FitResult]:
    """The same module once more, as an adapter may."""
    module, _ = train(PLAN)
    return train(PLAN, module)


def half() -> tuple[nn.Module, FitResult]:
    """In bf16, which this machine may only imitate."""
    native, precision.multiplies_bf16 = precision.multiplies_bf16, lambda device: True
    try:
        return train(replace(PLAN, precision="auto"))
    finally:
        precision.multiplies_bf16 = native


PATIENT = replace(PLAN, early_stopping=STOPPING)


def kept(folder: Path, step: int = 0) -> tuple[nn.Module, FitResult]:
    """Kept after a step, if one is given, and interrupted there; gone on with otherwise."""
    interruption = Interruption()

    def report(progress: Progress) -> None:
        if step and progress.done == step:
            interruption.request(signal.SIGTERM)

    place = Checkpoints(folder, "ab" * 32)
    saver = Saver(place=place, training=0, inputs={"seed": 0}, interruption=interruption)
    return train(PATIENT, report=report, saver=saver)


def interrupted(folder: Path) -> tuple[nn.Module, FitResult]:
    """Ended in the middle of the second epoch, and gone on with."""
    try:
        kept(folder, step=10)
    except Interrupted:
        return kept(folder)
    raise AssertionError("it was not interrupted")


TRAININGS: dict[str, Callable[[], tuple[nn.Module, FitResult]]] = {
    "everything": everything,
    "twice": twice,
    "half": half,
    "whole": lambda: train(PATIENT),
}

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-3, precision="fp32")


@dataclass(frozen=True)
class Case:
    """An adapter on a tiny model."""

    adapter: Adapter
    base: str
    task: Task


ADAPTERS = {
    "finetune-llama": Case(FineTune(fit=SHORT), "llama", CausalLM()),
    "lora": Case(LoRA(r=2, fit=SHORT), "bert", TextClassification()),
    "quantize": Case(Quantize(fit=SHORT), "bert", TextClassification()),
    "distill": Case(
        Distill(losses=Losses(logits=0.5, task=0.5, hidden=0.1), fit=SHORT),
        "bert",
        TextClassification(),
    ),
}


def main(folder: Path, target: Path) -> None:
    """Run everything on the models in `folder`; results go to `target`, those of each process by themselves."""
    target.mkdir(exist_ok=True)
    resumed = partial(interrupted, target / "store")
    for name, training in {**TRAININGS, "interrupted": resumed}.items():
        # How often a trail has an entry depends on the time that steps take; here it does not.
        with patch.object(Recorder, "_chosen", lambda self: 10):
            module, result = training()
        rank = dist.get_rank() if dist.is_initialized() else 0
        save_tensors(dict(module.state_dict()), target / f"{name}.{rank}.safetensors")
        found = {"facts": result.facts, "metrics": result.metrics, "intact": intact(module)}
        if result.trail is not None:
            found["steps"] = [entry.step for entry in result.trail.entries]
            found["last"] = result.trail.entries[-1].state
            found["own"] = own_hash(module, result.trail.tensors)
        (target / f"{name}.{rank}.json").write_text(json.dumps(found))
    for name, case in ADAPTERS.items():
        adapt(case, folder, target / f"{name}.0.safetensors")
    if dist.is_initialized():
        configured(target)


DEEPSPEED = {
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2",
    "ACCELERATE_GRADIENT_CLIPPING": "0.5",
}
"""As `accelerate launch` says it for a configuration that goes along with `PLAN`."""
CONFIGURATIONS = {
    "whole": {},
    "zero-0": {**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"},
    "zero-2": {**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "zero-3": {**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
    "fsdp-1": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "1",
        "FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP",
        "FSDP_BACKWARD_PREFETCH": "BACKWARD_PRE",
    },
}


def configured(target: Path) -> None:
    """The same training with each of the configurations."""
    before = dict(os.environ)
    for name, variables in CONFIGURATIONS.items():
        kept = {each: value for each, value in before.items() if "FSDP" not in each}
        os.environ.clear()
        os.environ.update({**kept, **variables})
        remarks: list[str] = []
        cut: list[bool] = []

        def look(module: nn.Module, batch: Batch, seen: list[bool] = cut) -> Tensor:
            logits = Tokens().forward(module, batch)
            inner = next(part for part in module.modules() if isinstance(part, Block))
            seen.append(is_sharded(inner))
            return Tokens().loss(logits, batch)

        def hear(progress: Progress, heard: list[str] = remarks) -> None:
            heard.extend(filter(None, [progress.remark]))

        module, result = train(PLAN, objective=look, report=hear)
        rank = dist.get_rank()
        save_tensors(dict(module.state_dict()), target / f"as-{name}.{rank}.safetensors")
        found = {"facts": result.facts, "remarks": remarks, "cut": cut, "intact": intact(module)}
        (target / f"as-{name}.{rank}.json").write_text(json.dumps(found))
    os.environ.clear()
    os.environ.update(before)


def adapt(case: Case, folder: Path, target: Path) -> None:
    """Apply an adapter to one of the models in `folder`; the first process writes the weights."""
    base, splits = folder / case.base, Data(source=str(folder / "rows")).load()
    task, store = case.task.pin(splits), Store.default(folder / "store")
    opened = open_network(base, task, store)
    session = Session(
        task=task,
        rows=splits,
        encoded=Encoded(task, opened.processor),
        seed=0,
        store=store,
        # without an identity, so that each process computes for itself what it says
        origin_teacher=Teacher((), lambda: open_network(base, task, store)),
    )
    with seeded(0):
        module = case.adapter.adapt(opened.module, session.with_fresh(opened.fresh)).module
    if not dist.is_initialized() or dist.get_rank() == 0:
        save_tensors({n: v.detach().clone() for n, v in module.state_dict().items()}, target)


def intact(module: nn.Module) -> bool:
    """Whether a module is what it was before, but for its weights: no other class, no hook, no share."""
    fresh = tower()
    return all(
        type(one) is type(other)
        and one.__dict__.keys() == other.__dict__.keys()
        and not any(table for name, table in one.__dict__.items() if "_hooks" in name and table)
        for one, other in zip(module.modules(), fresh.modules(), strict=True)
    ) and all(
        type(part) is nn.Parameter and type(part.data) is Tensor for part in module.parameters()
    )


def own_hash(module: nn.Module, names: tuple[str, ...]) -> str:
    """What the trail must end with."""
    known = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return state_hash(tensor_digests({name: known[name].detach() for name in names}))


def together(folder: Path, target: Path) -> None:
    """Run everything in this process, which is one of two."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    main(folder, target)
    dist.destroy_process_group()


if __name__ == "__main__":
    from ranks import fork, said

    inputs, outputs = Path(sys.argv[1]), Path(sys.argv[2])
    codes = fork((2,), lambda size, rank: together(inputs, outputs), inputs)
    if any(codes[2]):
        sys.exit("\n".join(said(inputs, 2, rank).read_text() for rank in (0, 1)))
