"""Teachers asked about the rows that a student will learn from: each once, whatever the number of epochs and runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from reuselib.adapter import ModelRef
from reuselib.derivation.teacher import Teacher, complete
from reuselib.errors import IncompatibleStep

if TYPE_CHECKING:
    from reuselib.adapter import Taught
    from reuselib.derivation.session import Session
    from reuselib.lineage.store import Store
    from reuselib.task import Examples, Processor, Rows, Task
    from reuselib.training.lessons import Lesson
    from reuselib.training.notebook import Kept
    from reuselib.training.plan import FitPlan
    from reuselib.training.teaching import Part


def named_teacher(ref: ModelRef, task: Task, store: Store) -> Teacher:
    """A model by reference, pinned but not opened."""
    from reuselib.derivation.plan import identity
    from reuselib.model.opening import open_network
    from reuselib.model.source import resolve

    pinned = resolve(ref, store)

    trusted = ref.trust_remote_code
    return Teacher(
        identity(pinned.manifest),
        lambda: open_network(pinned.folder, task, store, trust_remote_code=trusted),
        pinned.manifest.name,
    )


@dataclass(frozen=True, kw_only=True)
class Lecture:
    """Rows, and what is to be said about them."""

    rows: Rows
    digest: str
    """Of the rows."""
    session: Session
    lesson: Lesson
    plan: FitPlan

    def by(self, teachers: Sequence[Teacher]) -> Taught:
        """Ask every teacher, one after another, so that there is never more than one in memory."""
        from reuselib.training.seeds import seeded
        from reuselib.training.teaching import Taught

        # Opening a network draws from the generators; a lesson that is kept already does not.
        with seeded(self.session.seed):
            found = [self._ask(each) for each in teachers]
        metrics = {"lesson_bytes": float(sum(each.num_bytes for each in found))}
        if self.lesson.top_k is not None:
            metrics["lost_mass"] = sum(each.lost_mass for each in found) / len(found)
        return Taught([each.notes for each in found], metrics)

    def _ask(self, teacher: Teacher) -> Kept:
        from reuselib.training import notebook

        session = self.session
        if session.rehearsing or not teacher.identity:
            return notebook.in_memory(self._answers(teacher, self._first_rows()))
        subject = notebook.Subject(
            teacher=teacher.identity,
            rows=self.digest,
            encoding=self._encoding,
            lesson=self.lesson,
            machine=notebook.machine(),
        )
        rows = range(len(self._examples))
        return notebook.find(session.store, subject) or notebook.write(
            session.store, subject, self._answers(teacher, rows), len(rows)
        )

    def _answers(self, teacher: Teacher, rows: Sequence[int]) -> Iterator[Part]:
        """Open the teacher and ask it; it is let go of with the last answer."""
        from reuselib.training.teaching import Pupils, answers

        session = self.session
        try:
            opened = complete(teacher.open())
        except IncompatibleStep as error:
            raise IncompatibleStep(
                f"{teacher.name} cannot teach: {error.what}",
                expected="a teacher with the labels of this task",
                fix=error.fix,
            ) from error
        processor, task = opened.processor, session.task
        self._refuse_other_vocabulary(teacher, processor)
        examples = task.encode(self.rows, processor)
        if self.lesson.hidden_states or self.lesson.relations or self._speaks:
            self._refuse_other_encoding(teacher, processor, examples)
        # Reports of a rehearsal are taken for steps of the training.
        report = None if session.rehearsing else session.report
        pupils = Pupils(task, processor, examples, report)
        yield from answers(opened.module, self.lesson, pupils, rows)

    @property
    def _examples(self) -> Examples:
        return self.session.encoded.of(self.rows)

    @cached_property
    def _encoding(self) -> str:
        from reuselib.training.notebook import encoding_digest

        return encoding_digest(self.session.task, self.session.encoded.processor, self._examples)

    @property
    def _speaks(self) -> bool:
        """Whether outputs stand for tokens."""
        return self.session.task.num_tokens(self.session.encoded.processor) is not None

    def _first_rows(self) -> Sequence[int]:
        """Those that the training looks at, which may be cut short."""
        from reuselib.training.batching import costs, planned_rows

        lengths = costs(self._examples, self.session.task) if self.plan.group_by_length else None
        return planned_rows(self.plan, lengths, len(self._examples), seed=self.session.seed)

    def _refuse_other_vocabulary(self, teacher: Teacher, processor: Processor) -> None:
        if not self._speaks:
            return
        own, theirs = self.session.encoded.processor.get_vocab(), processor.get_vocab()
        if own == theirs:
            return
        odd = min(own.items() ^ theirs.items())
        where = ", ".join(
            f"{who}: {vocabulary.get(odd[0], 'absent')}"
            for who, vocabulary in (("student", own), ("teacher", theirs))
        )
        raise IncompatibleStep(
            f"{teacher.name} has another vocabulary, of {len(theirs)} tokens instead of {len(own)} "
            f"({odd[0]!r} is {where}), so its outputs are about other tokens",
            expected="a teacher with the student's tokenizer",
            fix="name a larger model of the same family, or train on the task alone with `finetune`",
        )

    def _refuse_other_encoding(
        self, teacher: Teacher, processor: Processor, examples: Examples
    ) -> None:
        from reuselib.training.notebook import encoding_digest

        if encoding_digest(self.session.task, processor, examples) != self._encoding:
            raise IncompatibleStep(
                f"{teacher.name} takes the rows in otherwise than the student (another tokenizer or image processor), "
                "so its positions are not the student's",
                expected="a teacher that cuts rows into the same tokens or patches",
                fix="learn from its logits alone, or name another teacher",
            )
