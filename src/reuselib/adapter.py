"""The contract that every adapter keeps: one reproducible change to a model.

An adapter is a frozen dataclass whose fields are its whole configuration. `derive` owns everything around it
(loading, seeding, measuring, saving, recording), so an adapter is pure change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, cast

from reuselib.errors import IncompatibleStep

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.data import Splits
    from reuselib.task import Batch, Task
    from reuselib.training.lessons import Lesson
    from reuselib.training.plan import FitPlan, ParameterGroup

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

Objective: TypeAlias = "Callable[[nn.Module, Batch], Tensor]"
"""Maps a module and a batch to the loss *summed* over the batch's targets: a scalar, to be divided by their number."""


Attach: TypeAlias = "Callable[[Sequence[int]], Batch]"
"""Tensors to add to a batch, for the training rows (by index) that it is made of, such as a teacher's outputs."""

Weights: TypeAlias = "Mapping[str, Tensor]"
"""Tensors by name; may read each from disk only when it is asked for."""


WAY_OUT: Mapping[str, str] = {
    "adapter": "put a `merge` step before it",
    "sparse": "put it before `sparsify`",
    "quantized": "put it before `quantize`",
    "quantized-adapter": "put it before `quantize`",
    "half": "put it before `quantize`",
}
"""By form of the model before a step: what to do if the step cannot follow it."""


def as_json(value: object) -> Json:
    """A frozen value (dataclass, tuple, mapping, scalar) as plain JSON, with every default written out.

    Raises:
        TypeError: the value holds something that JSON cannot say, such as a function.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return {str(key): as_json(item) for key, item in mapping.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in cast("Sequence[object]", value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} cannot be written as JSON")


@dataclass(frozen=True)
class ModelRef:
    """What a recipe and a manifest can say about a model."""

    source: str
    """Hub id, `./folder`, `package:module/path` or `store:id`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; resolved to a commit before anything is loaded."""
    digest: str | None = None
    """The `dirHash` (64 hex digits) that the folder must have; checked before the weights are read."""
    trust_remote_code: bool = False
    """Allow code from the model's repository. Never implied."""


@dataclass(frozen=True)
class Finding:
    """The outcome of checking one claim of a manifest against the weights."""

    claim: str
    """The claim in words, such as `frozen tensors are bit-equal to the parent's`."""
    holds: bool | None
    """`None` if it could not be checked; `detail` then says why."""
    detail: str = ""
    tensor: str = ""
    """The first tensor that breaks the claim."""
    compared: int = 0
    """How many of the child's tensors were held against the parents' values, rather than looked at by themselves or
    for their shape; each counts in one finding only."""


@dataclass(frozen=True)
class Adapted:
    """What an adapter hands back."""

    module: nn.Module
    """The module to keep: the one it was given, or a new one."""
    structure: Json = None
    """What `rebuild` and `prove` need besides the adapter's fields, as plain JSON."""
    stock: bool = False
    """Whether the network's own configuration says the new structure, so that the child is opened like any base."""
    dtype: str = "float32"
    """What floating-point tensors are stored as, such as `bfloat16`; they hold values of that type already."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    """Figures worth recording, such as the final training loss."""
    byproducts: Mapping[str, Json] = field(default_factory=dict[str, "Json"])
    """Findings too long for `structure` that later steps may use, by name (lower-case letters, digits and `-`): each
    is kept as `lineage/<name>.json`, bound by digest, and read back with `Run.recall`."""


@dataclass(frozen=True)
class Streamed:
    """A child that is made one tensor at a time, so that neither it nor its parent is ever in memory as a whole."""

    module: nn.Module
    """The child's network on the meta device: names, types and shapes are those that its folder will hold."""
    tensors: Iterable[tuple[str, Tensor]]
    """Every tensor of its state once, by name and in any order, each made when it is asked for; of those that share
    memory one is enough."""
    adapted: Callable[[], Adapted]
    """What `adapt` hands back, with `module` for the network. Called when all tensors have been written, so that it may
    say what was found on the way."""


class Taught(Protocol):
    """What teachers say about training rows: an `Attach`, with figures worth recording."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Such as how much of the probability was left out."""
        ...

    @property
    def widths(self) -> Mapping[str, int]:
        """How wide the vectors of each value are, by the name that it has in a batch."""
        ...

    def __call__(self, rows: Sequence[int]) -> Batch:
        """Under `teacher.<number>.<key>`, see `training.teaching`."""
        ...


class Run(Protocol):
    """All that an adapter may touch besides the module."""

    @property
    def task(self) -> Task:
        """What the model is for, with labels and the like filled in."""
        ...

    @property
    def splits(self) -> Splits:
        """The rows.

        Raises:
            DataError: the recipe names no data.
        """
        ...

    @property
    def seed(self) -> int:
        """Of the recipe; the generators are seeded with it already."""
        ...

    @property
    def form(self) -> str:
        """Form of the model before this step, see `Adapter.follow`."""
        ...

    @property
    def fresh(self) -> frozenset[str]:
        """Names of the tensors that the parent's checkpoint did not hold, such as those of a new head."""
        ...

    def fit(
        self,
        module: nn.Module,
        plan: FitPlan,
        *,
        groups: Sequence[ParameterGroup] = (),
        objective: Objective | None = None,
        attach: Attach | None = None,
    ) -> dict[str, float]:
        """Train the parameters that require a gradient; return figures such as `train_loss`.

        Args:
            module: to train, in place.
            plan: how long and how fast.
            groups: parameters with a learning rate or a start of their own.
            objective: replaces the task's loss.
            attach: what `objective` finds in a batch besides the task's own tensors.
        """
        ...

    def evaluate(self, module: nn.Module, split: str = "test") -> dict[str, float]:
        """The task's metrics over one split."""
        ...

    def batches(
        self, num_rows: int, *, split: str = "train", batch_size: int = 32
    ) -> Sequence[Batch]:
        """The first `num_rows` rows of a split with their targets, to calibrate with; rows of like length together.

        Raises:
            DataError: the recipe names no data, or the split has fewer rows.
        """
        ...

    def logits(self, module: nn.Module, num_rows: int) -> Tensor:
        """Outputs on the first `num_rows` evaluation rows, fp32: [rows, ...], padded positions left out."""
        ...

    def example(self) -> Batch:
        """One small batch of inputs without targets, for tracing."""
        ...

    def recall(self, name: str) -> Json:
        """The byproduct of that name of the nearest model in the line of parents that recorded one; None if none did.

        It says what was found on that model, so see that it still fits this one.

        Raises:
            SourceError: it was recorded, but that model is not at hand. Going on without it would make the child
                depend on what happens to lie on this machine.
            IntegrityError: its bytes are no longer those recorded.
        """
        ...

    def load(self, ref: ModelRef) -> nn.Module:
        """Another model of the same task. Recorded as a parent by its digests."""
        ...

    def weights(self, ref: ModelRef) -> Weights:
        """The tensors of another model of the same task, for `Adapter.stream`; otherwise as `load`.

        Under the names of its network and in its types, each read when it is asked for.

        Raises:
            IncompatibleStep: what it takes to open it cannot be done tensor by tensor.
        """
        ...

    def origin(self) -> nn.Module:
        """The model that the chain had before it was compressed; that before this step if it was not.

        Only for an adapter that `uses_origin`, which makes it a parent of the child.

        Raises:
            SourceError: it is not at hand.
        """
        ...

    def teach(self, teachers: Sequence[ModelRef], lesson: Lesson, plan: FitPlan) -> Taught:
        """What teachers say about the rows that `fit` trains on with `plan`, computed once and kept on disk.

        Each teacher is opened only if its answers are not kept yet, and is gone from memory afterwards.

        Args:
            teachers: models of the same task; none: `origin`.
            lesson: what to keep of their outputs.
            plan: how the training will be; early stopping may hold out rows.

        Raises:
            IncompatibleStep: a teacher has other labels or another vocabulary.
            StoreError: there is no room for the answers.
        """
        ...


class Adapter(ABC):
    """One reproducible change to a model. Its fields are its whole configuration."""

    kind: ClassVar[str]
    """Stable name in recipes and manifests; never reused for another meaning."""
    relation: ClassVar[str] = "finetune"
    """How the child relates to its parent: finetune, adapter, merge, prune, quantize, distill or convert."""
    whole: ClassVar[bool] = True
    """Whether a child folder holds every weight. If not, `save` and `load` say what it holds."""
    roles: ClassVar[Mapping[str, str]] = {}
    """What the models that a field names are to the child: `teacher`, `merge-source` or `student-init` (the default),
    by field."""

    @property
    def selected(self) -> Mapping[str, Sequence[str]]:
        """The fields that select weights, by the name under which `structure` lists what they matched.

        A proof matches them again, so that a record cannot set more weights free than its recipe does.
        """
        return {}

    @property
    def uses_origin(self) -> bool:
        """Whether `adapt` calls `Run.origin` or has the origin teach, which makes it a parent of the child."""
        return False

    @property
    def streams(self) -> bool:
        """Whether `stream` makes the child with this configuration. Its class must be `whole`."""
        return False

    @abstractmethod
    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Change `module`, which you own, and hand back the one to keep."""

    def outline(self, module: nn.Module, run: Run) -> Adapted:
        """What `adapt` hands back, of a network without weights: parameters on the meta device, which have shapes only.

        From this, memory and disk are estimated before anything is read. By default `adapt` itself, with a `run` that
        trains nothing; override it if `adapt` looks at weights.
        """
        return self.adapt(module, run)

    def stream(self, module: nn.Module, weights: Weights, run: Run) -> Streamed:
        """Make the child that `adapt` makes, to the last bit, looking at a tensor or a few at a time.

        Only called if it `streams`; for models that do not fit into memory. Nothing is measured on such a run: `run`
        gives neither `logits` nor anything else that computes with the network.

        Args:
            module: the network before, on the meta device; it is yours.
            weights: its tensors, under the names and in the types of its state, however they lie on disk. Of a network
                with a low-rank update beside it, under the names of the files as `prove` has them.
            run: see `adapt`.
        """
        raise NotImplementedError

    def rebuild(self, module: nn.Module, structure: Json) -> nn.Module:
        """Redo the structural part only; the caller then loads the weights."""
        return module

    @abstractmethod
    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Yield what must hold between the parents' tensors and the child's.

        `parents[0]` is the model the step started from; the models that this adapter's `ModelRef` fields name
        follow, in order, and then the origin for an adapter that `uses_origin`. A mapping reads a tensor when it is
        asked for, so look at one at a time. The parents'
        names are those of the child's network (a new prefix is taken into account), floating-point values are
        cast to the dtype the step worked in, and the tensors of a parent that is not `whole` come with those of
        the model it needs.
        """

    def prove_record(self, before: Adapter, recorded: Json, structure: Json) -> Iterable[Finding]:
        """Yield what must hold between this step's record and that of the step before; nothing by default.

        Args:
            before: the adapter that made `parents[0]`.
            recorded: its structure.
            structure: this step's own.
        """
        return ()

    def prove_across(
        self, before: Adapter, parent: Weights, child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Yield what must hold between a child and its parent's parent, where the parent itself is not at hand.

        Nothing by default. Such findings can refute a child; they never make its step a proven one.

        Args:
            before: the adapter that made the missing parent.
            parent: what that was made from, as this step would see it.
            child: of this step.
            structure: of this step.
        """
        return ()

    def describe(self) -> dict[str, Json]:
        """The adapter as recipes write it: its kind, and every field."""
        return {self.kind: as_json(self)}

    def follow(self, form: str) -> str:
        """The form of the child, given the parent's; both `dense` unless an adapter says otherwise.

        `dense`: floating-point weights; `sparse`: the same with zeros that training keeps; `adapter` and
        `quantized-adapter`: low-rank updates over a dense or a quantized model; `quantized`: integer weights; `half`:
        weights in 16 bits.
        Called for a whole chain before anything runs.

        Raises:
            IncompatibleStep: this adapter cannot be applied to a model of that form.
        """
        if form != "dense":
            raise IncompatibleStep(
                f"'{self.kind}' changes weights in place, but the model before it is of form '{form}'",
                expected="a dense model",
                fix=WAY_OUT.get(form, "change the order of the steps"),
            )
        return "dense"

    def save(self, module: nn.Module, folder: Path) -> None:
        """Write what a child of this adapter holds. Only called if it is not `whole`."""
        raise NotImplementedError

    def load(self, module: nn.Module, folder: Path) -> None:
        """Read back what `save` wrote into a rebuilt module. Only called if it is not `whole`."""
        raise NotImplementedError
