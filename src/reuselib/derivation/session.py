"""What an adapter is handed besides the module: the only `Run` there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from reuselib.adapter import Attach, Json, ModelRef, Objective, Taught, Weights
from reuselib.derivation.saving import Saving, StepSaving
from reuselib.derivation.teacher import (
    Teacher,
    complete,
    refuse_other_form,
    refuse_other_processor,
)
from reuselib.errors import DataError, IncompatibleStep
from reuselib.progress import Report

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.data import Splits
    from reuselib.derivation.company import Company
    from reuselib.derivation.derive import Runtime
    from reuselib.derivation.plan import Plan
    from reuselib.lineage.store import Store
    from reuselib.lineage.trail import Trail
    from reuselib.model.opening import Opened
    from reuselib.task import Batch, Examples, Processor, Rows, Task
    from reuselib.training.activations import Shelf
    from reuselib.training.lessons import Lesson
    from reuselib.training.plan import FitPlan, ParameterGroup
    from reuselib.training.replay import Replay
    from reuselib.training.state import Keeper, State

NUM_COMPARED = 64
"""Training rows that are encoded with both processors to see that two models take them in alike."""


@dataclass
class Encoded:
    """The splits as the task encodes them, each encoded once a run."""

    task: Task
    processor: Processor
    done: dict[int, tuple[Rows, Examples]] = field(default_factory=dict)
    """By `id`; the rows are kept, because an id is given to other rows once its own are gone."""
    elsewhere: Callable[[Rows], Examples | None] | None = None
    """What another process may have encoded already."""

    def of(self, rows: Rows) -> Examples:
        """Encode rows, or hand back what was encoded before."""
        if id(rows) not in self.done:
            found = None if self.elsewhere is None else self.elsewhere(rows)
            encoded = self.task.encode(rows, self.processor) if found is None else found
            self.done[id(rows)] = (rows, encoded)
        return self.done[id(rows)][1]


def begin(plan: Plan, folder: Path, sketch: Opened | None = None) -> tuple[Opened, Session]:
    """Open the model in `folder` as the plan says, and a session over the plan's rows.

    Args:
        plan: of the run.
        folder: of the model.
        sketch: the model, opened without its weights already.
    """
    from reuselib.measure.memory import keep_few_kernels
    from reuselib.model.opening import open_network
    from reuselib.training.seeds import seeded

    keep_few_kernels()
    trusted, opened = plan.base.ref.trust_remote_code, sketch
    if opened is None:
        with seeded(plan.seed):
            opened = open_network(folder, plan.task, plan.store, trust_remote_code=trusted)
    session = Session(
        task=plan.task,
        rows=plan.splits,
        encoded=Encoded(plan.task, opened.processor),
        seed=plan.seed,
        store=plan.store,
    )
    return opened, session


def equipped(session: Session, runtime: Runtime) -> Session:
    """The session with what is told to a run, in every process of it."""
    return replace(
        session,
        trackers=runtime.trackers,
        logging_dir=runtime.logging_dir,
        num_states=runtime.keep_states,
        saving=Saving.of(runtime),
        cache_bytes=runtime.cache_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class Session:
    """A `Run`: one adapter's view of task, rows and loop."""

    task: Task
    rows: Splits | None
    encoded: Encoded
    seed: int
    store: Store
    form: str = "dense"
    fresh: frozenset[str] = frozenset()
    origin_teacher: Teacher | None = None
    """What the chain had before it was compressed, for an adapter that uses it."""
    remembered: Callable[[str], Json] | None = None
    """What `recall` asks."""
    rehearsing: bool = False
    """Nothing is kept, and only what the first few steps need is computed."""
    trackers: tuple[str, ...] = ()
    logging_dir: Path | None = None
    report: Report | None = None
    loaded: MutableMapping[nn.Module, tuple[Json, ...]] = field(default_factory=WeakKeyDictionary)
    """What must be replayed to open again a network that `load` gave, should an adapter hand it back."""
    settled: dict[str, Json] = field(default_factory=dict)
    """In what way the last `fit` ran: precision, device, processes, threads."""
    trails: list[Trail] = field(default_factory=list)
    """One of each `fit`, in order."""
    replays: Sequence[Replay] = ()
    """What of recorded trainings to do again, for each `fit`."""
    derivation_id: str = ""
    """Under which states are kept."""
    num_states: int = 0
    """How many to keep, of the first `fit`."""
    cache_bytes: int = 8 * 2**30
    """Room for outputs of frozen blocks; as much as a run has that is told nothing."""
    saving: Saving | None = None
    """What the run was told about checkpoints; None for none."""
    step_saving: StepSaving | None = None
    """Where those of the present step are."""
    company: Company | None = None
    """The other processes, if there are any."""

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
        """Train; holds out a tenth of the training rows if early stopping needs a split and there is none."""
        from reuselib.training.fitting import fit
        from reuselib.training.job import Job
        from reuselib.training.zeros import sparse_parameters

        splits = self.splits.with_validation() if plan.early_stopping else self.splits
        validation = splits.validation if plan.early_stopping else None
        job = Job(
            task=self.task,
            processor=self.encoded.processor,
            train=self.encoded.of(splits.train),
            validation=None if validation is None else self.encoded.of(validation),
            seed=self.seed,
            groups=tuple(groups),
            objective=objective,
            attach=attach,
            sparse=sparse_parameters(module, self.fresh) if self.form == "sparse" else (),
            trackers=self.trackers,
            logging_dir=self.logging_dir,
            report=self.report,
            trail=not self.rehearsing,
            shelf=self._shelf(splits),
            keeper=self._keeper(),
            replay=self.replays[len(self.trails)] if len(self.trails) < len(self.replays) else None,
        )
        with (
            nullcontext() if self.company is None else self.company.training(self.encoded),
            nullcontext()
            if self.step_saving is None
            else self.step_saving.saver(self.report) as saver,
        ):
            result = fit(module, plan, replace(job, saver=saver))
        self.settled.update(result.facts)
        if result.trail is not None:
            self.trails.append(result.trail)
        return dict(result.metrics)

    def evaluate(self, module: nn.Module, split: str = "test") -> dict[str, float]:
        """The task's metrics over one split."""
        from reuselib.training.evaluate import evaluate

        return evaluate(module, self._examples(split), self.task, self.encoded.processor)

    def batches(
        self, num_rows: int, *, split: str = "train", batch_size: int = 32
    ) -> Sequence[Batch]:
        """The first rows of a split, sorted by length so that little is padded."""
        examples = self._examples(split)
        if len(examples) < num_rows:
            raise DataError(
                f"{num_rows} rows of the {split} split were asked for, but it has {len(examples)}",
                expected=f"at most {len(examples)} rows to calibrate with",
                fix="lower the number of rows, or give more data",
            )
        first = sorted(self._first(split, num_rows), key=self.task.length)
        return [
            self.task.collate(first[at : at + batch_size], self.encoded.processor)
            for at in range(0, num_rows, batch_size)
        ]

    def logits(self, module: nn.Module, num_rows: int) -> Tensor:
        """Outputs on the first evaluation rows, fp32."""
        from reuselib.training.evaluate import logits

        return logits(module, self._first("test", num_rows), self.task, self.encoded.processor)

    def example(self) -> Batch:
        """Two rows of inputs without targets."""
        batch = self.task.collate(self._first("train", 2), self.encoded.processor)
        return self.task.inputs(batch)

    def recall(self, name: str) -> Json:
        """What an earlier step of the chain found and recorded."""
        return None if self.remembered is None else self.remembered(name)

    def load(self, ref: ModelRef) -> nn.Module:
        """Another model of the same task, in evaluation mode, that takes batches as they are encoded here."""
        from reuselib.model.opening import open_network
        from reuselib.model.source import resolve

        pinned = resolve(ref, self.store)
        opened = open_network(
            pinned.folder, self.task, self.store, trust_remote_code=ref.trust_remote_code
        )
        module = complete(opened).module
        self._refuse_unlike(pinned.manifest.name, opened)
        self.loaded[module] = opened.rebuild
        return module

    def weights(self, ref: ModelRef) -> Weights:
        """The tensors of another model of the same task, which is not in memory; refused for the same reasons."""
        from reuselib.model.sketching import open_sketch
        from reuselib.model.source import resolve

        pinned = resolve(ref, self.store)
        opened = open_sketch(pinned.folder, self.task, self.store)
        if opened is None or opened.weights is None:
            raise IncompatibleStep(
                f"{pinned.manifest.name} cannot be opened tensor by tensor, as the model before this step is",
                expected="a model whose files hold each tensor of its network",
                fix="save it anew with this version of transformers, or give the run more memory and some rows",
            )
        complete(opened)
        self._refuse_unlike(pinned.manifest.name, opened)
        return opened.weights

    def origin(self) -> nn.Module:
        """The model before it was compressed."""
        return self._origin_teacher().module()

    def teach(self, teachers: Sequence[ModelRef], lesson: Lesson, plan: FitPlan) -> Taught:
        """What teachers say about the training rows, kept on disk."""
        from reuselib.derivation.lecture import Lecture, named_teacher

        splits = self.splits.with_validation() if plan.early_stopping else self.splits
        named = [named_teacher(ref, self.task, self.store) for ref in teachers]
        lecture = Lecture(
            rows=splits.train,
            digest=splits.facts["splits"]["train"]["digest"],
            session=self,
            lesson=lesson,
            plan=plan,
        )
        return lecture.by(named or [self._origin_teacher()])

    def reference(self) -> Mapping[str, float | str]:
        """What the task's simple method reaches on these rows; empty if it has none."""
        return (self.task.reference(self.rows) if self.rows is not None else None) or {}

    def with_fresh(self, fresh: frozenset[str]) -> Session:
        """The same session for a module in which those tensors are newly initialised."""
        return replace(self, fresh=fresh)

    def _shelf(self, splits: Splits) -> Shelf | None:
        from reuselib.training.activations import Shelf

        digest = splits.facts["splits"]["train"]["digest"]
        return None if self.rehearsing else Shelf(self.store, digest, self.cache_bytes)

    def _refuse_unlike(self, name: str, opened: Opened) -> None:
        """Another model must have weights of the same kind, and take batches as they are encoded here."""
        refuse_other_form(name, opened.form, self.form)
        rows = list(islice(self.splits.train, NUM_COMPARED)) if self.rows is not None else []
        processors = self.encoded.processor, opened.processor
        refuse_other_processor(name, self.task, rows, processors)

    def _keeper(self) -> Keeper | None:
        from reuselib.training.state import Keeper, write_state

        def write(state: State) -> str:
            with self.store.states.fill(self.derivation_id, str(state.step)) as folder:
                return write_state(folder, state)

        return Keeper(self.num_states, write) if self.num_states and not self.trails else None

    def _origin_teacher(self) -> Teacher:
        if self.origin_teacher is None:
            raise IncompatibleStep(
                "an adapter asked for the origin without saying that it uses it",
                fix="let its `uses_origin` be true",
            )
        return self.origin_teacher

    def _examples(self, split: str) -> Examples:
        rows = getattr(self.splits, split)
        if rows is None:
            raise DataError(f"there is no split '{split}'", expected="train, test or validation")
        return self.encoded.of(rows)

    def _first(self, split: str, num_rows: int) -> Examples:
        examples = self._examples(split)
        return [examples[index] for index in islice(range(len(examples)), num_rows)]
