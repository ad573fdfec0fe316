"""A step on a network without weights: what an adapter is handed when memory is estimated, and what it asks for.

Parameters are on the meta device, so nothing is read of a model but its configuration and the headers of its files.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from reuselib.adapter import Adapted, Adapter, Attach, Json, ModelRef, Objective, Taught
from reuselib.data.rows import take
from reuselib.errors import ReuseError
from reuselib.measure.footprint import Bytes, Footprint, Lesson, of_learned, of_module, of_training
from reuselib.training import checks
from reuselib.training.batching import costs, micro_batches, plan_batches, share

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from reuselib.data import Splits
    from reuselib.lineage.store import Store
    from reuselib.task import Batch, Examples, Loaded, Processor, Rows, Task
    from reuselib.training.lessons import Lesson as Said
    from reuselib.training.plan import FitPlan, ParameterGroup

MAX_ROWS = 20_000
"""Rows of a split that are encoded to see how long they are; of more, every second, third, ... is."""
SMALL = 2**20
"""Bytes up to which a buffer has values: positions, running statistics, which adapters compare before and after."""
LOGIT_COPIES = 2
"""Outputs of a step that a comparison with a teacher's keeps besides those of the task's own loss."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a step, in one of several processes with a whole copy of the network each."""

    num_steps: int
    num_trainable: int
    weights: Bytes
    learned: Bytes
    """The parameters that learn; gradients take as much, moments twice."""
    kept: Bytes
    """Besides: the best weights so far, masks of zeros, buckets of gradients that are exchanged."""
    step: Footprint
    """Of an optimizer step."""
    checkpoint: int
    """Bytes of what it takes to go on later."""
    sharded: Bytes | None = None
    """All of the above where each process has a share of every weight (FSDP2); None for a single process."""


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A `Run` for networks without weights, which notes what was asked for."""

    task: Task
    rows: Splits | None
    processor: Processor
    seed: int
    device: torch.device
    open: Callable[[ModelRef], nn.Module]
    """Any model, without its weights."""
    num_processes: int = 1
    form: str = "dense"
    fresh: frozenset[str] = frozenset()
    trainings: list[Training] = field(default_factory=list[Training])
    looked: list[Batch] = field(default_factory=list["Batch"])
    """Batches that were to be calibrated with."""
    lessons: list[Said] = field(default_factory=list["Said"])
    """What teachers were asked for."""
    encoded: dict[str, Examples] = field(default_factory=dict[str, "Examples"])
    """Rows by split, see `examples`."""

    @property
    def splits(self) -> Splits:
        """The rows.

        Raises:
            DataError: the recipe names no data.
        """
        from reuselib.data.splits import required

        return required(self.rows)

    def fit(
        self,
        module: nn.Module,
        plan: FitPlan,
        *,
        groups: Sequence[ParameterGroup] = (),
        objective: Objective | None = None,
        attach: Attach | None = None,
    ) -> dict[str, float]:
        """Note what the training would take; nothing is trained."""
        num_rows = len(self.splits.train)
        checks.check(plan, self.splits.train, None if plan.early_stopping is None else [{}])
        batches = self._heaviest(plan)
        weights, learned = of_module(module), of_learned(module)
        lesson = Lesson(
            plan=plan,
            batches=batches,
            loss=self._loss(attached=attach is not None),
            precision=self._precision(plan),
        )
        step = of_training(module, lesson, self.device)
        buckets = learned if self.num_processes > 1 else Bytes()
        best = learned if plan.early_stopping is not None else Bytes()
        kept = best + buckets + (self._masks(module) if self.form == "sparse" else Bytes())
        buffers = sum(each.nbytes for each in module.buffers())
        self.trainings.append(
            Training(
                num_steps=checks.num_steps(plan, num_rows),
                num_trainable=sum(e.numel() for e in module.parameters() if e.requires_grad),
                weights=weights,
                learned=learned,
                kept=kept,
                step=step,
                checkpoint=3 * learned.total + best.total + buffers,
                sharded=self._sharded(module, lesson, step) if self.num_processes > 1 else None,
            )
        )
        return {}

    def evaluate(self, module: nn.Module, split: str = "test") -> dict[str, float]:
        """Nothing is measured."""
        return {}

    def batches(
        self, num_rows: int, *, split: str = "train", batch_size: int = 32
    ) -> Sequence[Batch]:
        """Real rows, as far as they are encoded here: shapes count."""
        examples = self.examples(split)
        chosen = sorted(islice(examples, num_rows), key=self.task.length)
        found = [
            self.task.collate(chosen[at : at + batch_size], self.processor)
            for at in range(0, len(chosen), batch_size)
        ]
        self.looked.extend(found)
        return found

    def logits(self, module: nn.Module, num_rows: int) -> Tensor:
        """A number, since there are no weights."""
        import torch

        return torch.zeros(1)

    def example(self) -> Batch:
        """Two rows of inputs without targets, on the meta device."""
        batch = self.task.collate(list(islice(self.examples("train"), 2)), self.processor)
        return {name: each.to("meta") for name, each in self.task.inputs(batch).items()}

    def recall(self, name: str) -> Json:
        """Nothing was found yet."""
        return None

    def load(self, ref: ModelRef) -> nn.Module:
        """Another model without its weights."""
        return self.open(ref)

    def origin(self) -> nn.Module:
        """Not known here; see `budget`."""
        raise NotImplementedError

    def teach(self, teachers: Sequence[ModelRef], lesson: Said, plan: FitPlan) -> Taught:
        """Note the lesson; nobody says anything."""
        self.lessons.append(lesson)
        return _Silent()

    def examples(self, split: str) -> Examples:
        """The rows of a split, encoded; of very many only some."""
        if split not in self.encoded:
            rows = sampled(getattr(self.splits, split))
            self.encoded[split] = self.task.encode(rows, self.processor)
        return self.encoded[split]

    def longest(self, split: str, num_rows: int) -> Batch:
        """The longest rows of a split."""
        examples = self.examples(split)
        lengths = costs(examples, self.task) or [1] * len(examples)
        order = sorted(range(len(examples)), key=lambda row: -lengths[row])[:num_rows]
        return self.task.collate([examples[row] for row in order], self.processor)

    def _heaviest(self, plan: FitPlan) -> list[Batch]:
        """This process's part of the micro-batches of the optimizer step with most in it."""
        examples = self.examples("train")
        lengths = costs(examples, self.task)
        grouped = lengths if plan.group_by_length else None
        steps = plan_batches(grouped, len(examples), plan.batch_size, seed=self.seed, epoch=0)

        def weight(rows: Sequence[int]) -> int:
            return len(rows) * max(lengths[row] for row in rows) if lengths else len(rows)

        heaviest = max(steps[: plan.max_steps], key=weight)
        size = checks.num_micro_rows(plan)
        pieces = [share(rows, 0, self.num_processes) for rows in micro_batches(heaviest, size)]
        return [
            self.task.collate([examples[row] for row in rows], self.processor) for rows in pieces
        ]

    def _loss(self, *, attached: bool) -> Callable[[nn.Module, Batch], Tensor]:
        """The task's own loss; what compares with a teacher keeps more of the outputs."""

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            logits = self.task.forward(module, batch)
            own = self.task.loss(logits, batch)
            for _ in range(LOGIT_COPIES if attached else 0):
                own = own + logits.float().exp().sum()
            return own

        return loss

    def _precision(self, plan: FitPlan) -> str:
        """As the plan has it, also where this machine would refuse it: it may be for another one."""
        from reuselib.training.precision import resolve

        return resolve("auto", self.device) if plan.precision == "auto" else plan.precision

    def _masks(self, module: nn.Module) -> Bytes:
        sizes = (
            each.numel() for each in module.parameters() if each.requires_grad and each.ndim > 1
        )
        return sum(map(Bytes.block, sizes), Bytes())

    def _sharded(self, module: nn.Module, lesson: Lesson, step: Footprint) -> Bytes:
        """A share of everything that stays, and what is gathered while a unit of the network works.

        That is the unit that works, the next one, and a whole gradient of one; what belongs to no unit is whole from
        the first to the last. In bf16 the gathered weights are, and there are no other copies of them.
        """
        import torch

        from reuselib.training.sharding import Sharding, units

        found = units(module, self.task.head(module), Sharding())
        inside = {id(each) for unit in found for each in unit.parameters()}
        outside = Bytes.block(
            sum(each.nbytes for each in module.parameters() if id(each) not in inside)
        )
        unit = max(map(of_module, found), key=lambda each: each.total, default=Bytes())
        gathered, share_of = unit * 3 + outside, of_module(module) + of_learned(module) * 3
        activations = step.parts["activations"]
        if lesson.precision == "bf16":
            gathered = Bytes(gathered.small // 2, gathered.large // 2)
            step = of_training(module, lesson, self.device, dtype=torch.bfloat16)
            activations = step.parts["activations"]
        size = self.num_processes
        shares = Bytes(share_of.small // size, share_of.large // size)
        return shares + gathered + Bytes(small=activations)


class _Silent:
    """Answers of nobody."""

    metrics: Mapping[str, float] = MappingProxyType({})
    widths: Mapping[str, int] = MappingProxyType({})

    def __call__(self, rows: Sequence[int]) -> Batch:
        return {}


def sketch_step(adapter: Adapter, module: nn.Module, run: Sketch) -> tuple[Adapted, str]:
    """What a step makes of a network without weights, which stays as it is; and what could not be told.

    An adapter that says nothing about networks without weights is taken to leave shapes as they are.
    """
    own = copy.deepcopy(module)
    try:
        return adapter.outline(own, cast("Any", run)), ""
    except ReuseError:
        raise
    except Exception as error:  # noqa: BLE001 - strangers may look at weights in any way
        if run.trainings:  # what followed looked at what was learned
            return Adapted(own), ""
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return Adapted(module), f"'{adapter.kind}' does not say what it does to a model: {reason}"


def sketch_model(folder: Path, task: Task, store: Store) -> Loaded:
    """The network of a base or a child without its weights, and its processor; otherwise as `open_network`."""
    from dataclasses import replace

    import torch

    from reuselib.model.opening import needed_folder, read_manifest, recorded_adapter
    from reuselib.model.sketching import sketched
    from reuselib.values.named import parse_adapter

    manifest = read_manifest(folder)
    internal = manifest.definition.internal if manifest else None
    if manifest is not None and internal is not None and internal.requires:
        below = sketch_model(needed_folder(manifest, store), task, store)
        with torch.device("meta"):
            module = recorded_adapter(manifest).rebuild(below.module, internal.structure)
        return replace(below, module=module)
    loaded = sketched(task, folder)
    module = loaded.module
    for entry in internal.rebuild if internal is not None else ():
        with torch.device("meta"):
            module = parse_adapter(entry["adapter"]).rebuild(module, entry["structure"])
    _give_values(module)
    return replace(loaded, module=module)


def sampled(rows: Rows) -> Rows:
    """The rows, or so many of them, spread evenly, that encoding them takes a moment."""
    every = -(-len(rows) // MAX_ROWS)
    return rows if every <= 1 else take(rows, range(0, len(rows), every))


def _give_values(module: nn.Module) -> None:
    """Put zeros into small buffers, so that they can be compared."""
    import torch

    for part in module.modules():
        for name, value in part._buffers.items():
            if value is not None and value.is_meta and value.nbytes <= SMALL:
                part._buffers[name] = torch.zeros(value.shape, dtype=value.dtype, device="cpu")
