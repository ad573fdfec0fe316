"""Distillation: a student learns from what a teacher says, such as a pruned model from what it was before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reuselib.adapter import Adapted, Adapter, Finding, Json, ModelRef, Run, Weights
from reuselib.errors import IncompatibleStep
from reuselib.lineage.structure import Structure
from reuselib.measure.claims import only_learned
from reuselib.training.lessons import Lesson, Losses
from reuselib.training.plan import FitPlan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reuselib.network.cutting import Cut
    from reuselib.task import Batch

LAST = ((-1, -1),)
"""The pairs of an empty `layer_map`."""
TEMPERATURE = 1.0


@dataclass(frozen=True, kw_only=True)
class Distill(Adapter):
    """Train a student on a teacher's outputs: by default the model itself, on those of what it was before compression.

    What teachers say about the training rows is computed once and kept in the store (Hinton et al., 2015).
    """

    kind: ClassVar[str] = "distill"
    relation: ClassVar[str] = "distill"
    roles: ClassVar[Mapping[str, str]] = {"teachers": "teacher", "student": "student-init"}

    teachers: tuple[ModelRef, ...] = ()
    """Models of the same task; the student learns from each to the same part. Empty: the model that the chain had
    before it was compressed."""
    student: ModelRef | None = None
    """Another model of the same task and tokenizer to start from; null: the model before this step."""
    blocks: tuple[int, ...] | None = None
    """Start from these blocks of the model before this step, such as `[0, 2, 4]`; null: all."""
    temperature: float = TEMPERATURE
    """Both sides' logits are divided by it: above 1, what the teacher holds unlikely counts for more."""
    losses: Losses = Losses()
    """What the student is trained on, and how much each part counts."""
    layer_map: tuple[tuple[int, int], ...] = ()
    """For hidden states and relations: pairs of a block of the student and the block of the teacher that it learns
    from, counted from 0, or from -1 for the last. Empty: the last from the last."""
    top_k: int | None = None
    """Of the teacher's probabilities keep the largest so many and the sum of the others: spares room on the disk where
    categories are many, as tokens are. Null: all."""
    fit: FitPlan = FitPlan()
    """How to train."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.student is not None and self.blocks is not None:
            raise ValueError("student and blocks both say what to start from: give one of them")
        if self.blocks is not None and (
            not self.blocks or self.blocks[0] < 0 or list(self.blocks) != sorted({*self.blocks})
        ):
            raise ValueError(f"blocks must be different numbers from 0 up, got {[*self.blocks]}")
        if not self.losses.logits and (self.top_k is not None or self.temperature != TEMPERATURE):
            raise ValueError("temperature and top_k have no effect without losses.logits")
        if self.layer_map and not (self.losses.hidden or self.losses.relations):
            raise ValueError("layer_map has no effect without losses.hidden or losses.relations")

    @property
    def selected(self) -> Mapping[str, Sequence[str]]:
        """See `Adapter.selected`; a student learns as a whole."""
        return {"trained": ("all",)}

    @property
    def uses_origin(self) -> bool:
        """See `Adapter`; so it is if no teacher is named."""
        return not self.teachers

    def follow(self, form: str) -> str:
        """See `Adapter.follow`; the zeros of a sparse model stay."""
        return form if form == "sparse" else super().follow(form)

    def adapt(self, module: nn.Module, run: Run) -> Adapted:
        """Build the student and train it."""
        from reuselib.training.pupil import Course, Pupil

        self._refuse_idle(run)
        module, cut, stock = self._start(module, run)
        taught = run.teach(self.teachers, self._lesson, self.fit)
        course = Course(
            task=run.task,
            losses=self.losses,
            temperature=self.temperature,
            pairs=self.layer_map or LAST,
        )
        pupil = Pupil(module, course, run.example(), taught.widths)
        pupil.requires_grad_(True)
        before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        with pupil.watching():
            metrics = run.fit(pupil, self.fit, objective=_own_loss, attach=taught)
        moved = [name for name, buffer in module.named_buffers() if not buffer.equal(before[name])]
        trained = [name for name, _ in module.named_parameters(remove_duplicate=False)]
        structure: Json = {"cut": cut, "trained": sorted(trained), "statistics": sorted(moved)}
        figures = {**metrics, **taught.metrics}
        return Adapted(module, structure=structure, stock=stock, metrics=figures)

    def rebuild(self, module: nn.Module, structure: Json) -> nn.Module:
        """Drop the blocks again that the student did not get."""
        from reuselib.network.cutting import cut

        plan = _recorded_cut(_read(structure))
        if plan.blocks:
            cut(module, plan)
        return module

    @property
    def _lesson(self) -> Lesson:
        theirs = tuple(dict.fromkeys(pair[1] for pair in self.layer_map or LAST))
        return Lesson(
            logits=self.losses.logits > 0,
            top_k=self.top_k,
            temperature=self.temperature if self.top_k else 1.0,
            hidden_states=theirs if self.losses.hidden else (),
            relations=theirs if self.losses.relations else (),
        )

    def _start(self, module: nn.Module, run: Run) -> tuple[nn.Module, Json, bool]:
        """The student before it learns, the cut that made it, and whether its configuration says how it is built."""
        if self.blocks is not None:
            from reuselib.network.stating import resize

            plan = _kept(module, self.blocks)
            return module, plan.to_json(), resize(module, plan)
        if self.student is None:
            return module, None, True
        try:
            return run.load(self.student), None, True
        except IncompatibleStep as error:
            raise IncompatibleStep(
                f"student: {error.what}",
                expected="a model that is complete for this task, with the tokenizer of the model before this step",
                fix="make it the base, and name the model before this step under `teachers`",
            ) from error

    def _refuse_idle(self, run: Run) -> None:
        """Options that have no effect for this task."""
        meaning = run.task.meaning
        if meaning == "numbers" and self.temperature != TEMPERATURE:
            raise IncompatibleStep(
                "temperature has no effect: the task's outputs are plain numbers, which are compared as they are",
                expected="outputs that are scores of categories or decisions",
                fix="leave out temperature",
            )
        if meaning != "categories" and self.top_k is not None:
            raise IncompatibleStep(
                "top_k has no effect: the task's outputs are not the scores of categories of which one is right",
                expected="a task with one right category",
                fix="leave out top_k",
            )

    def prove(
        self, parents: Sequence[Weights], child: Weights, structure: Json
    ) -> Iterable[Finding]:
        """Every teacher is at hand as recorded; names and shapes are those of the start; something was learned."""
        record = _read(structure)
        plan = _recorded_cut(record)
        num_teachers = len(self.teachers) or 1
        # whoever calls has compared the digest of every parent with the manifest before
        yield Finding(
            "every teacher is at hand with the recorded digest",
            complete := len(parents) == 1 + num_teachers + (self.student is not None),
            f"{num_teachers} teacher{'s' * (num_teachers != 1)}; what they said about the rows cannot be had "
            "without the rows",
        )
        if not complete:
            return
        start = parents[0] if self.student is None else parents[1 + len(self.teachers)]
        kept = [axis.keep for axis in plan.blocks.values()]
        yield Finding(
            "the start is whole, or made of the named blocks",
            kept == ([] if self.blocks is None else [self.blocks]) and not plan.tensors,
            f"{kept or 'all'}",
        )
        start = _Left(start, plan)
        yield from only_learned(
            start,
            child,
            record.names("trained"),
            record.names("statistics"),
            still="what does not learn is bit-equal to the start",
            changed="at least one tensor differs from the start",
        )


def _read(structure: Json) -> Structure:
    return Structure.read(structure, ("cut", "trained", "statistics"))


def _recorded_cut(record: Structure) -> Cut:
    from reuselib.network.cutting import Cut

    recorded = record.values["cut"]
    return Cut() if recorded is None else Cut.of_json(recorded)


class _Left(Mapping[str, "Tensor"]):
    """What a cut leaves of a model's tensors, under the names that they then have."""

    def __init__(self, tensors: Weights, plan: Cut) -> None:
        self._tensors, self._plan = tensors, plan
        self._names = {new: name for name in tensors if (new := plan.renamed(name)) is not None}

    def __getitem__(self, name: str) -> Tensor:
        old = self._names[name]
        return self._plan.survivor(old, self._tensors[old])

    def __contains__(self, name: object) -> bool:
        # Mapping would read the tensor to find out
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _kept(module: nn.Module, blocks: Sequence[int]) -> Cut:
    """The cut that leaves these blocks."""
    from reuselib.network.axes import Keep, plan
    from reuselib.network.families import family

    found = family(module)
    number = len(found.blocks)
    if blocks[-1] >= number or len(blocks) == number or len(found.stacks) > 1:
        raise IncompatibleStep(
            f"blocks={[*blocks]} does not name some of the network's {number} blocks",
            expected=f"some of the numbers from 0 to {number - 1}, in a network with one list of blocks",
            fix="correct blocks, or leave it out to train the whole model",
        )
    return plan(module, Keep(blocks=blocks))


def _own_loss(pupil: nn.Module, batch: Batch) -> Tensor:
    """The pupil's own, see `Pupil`."""
    return pupil(batch)
