"""Everything reuselib raises on purpose.

Each error says what happened, what was expected and how to fix it, and knows the exit code with which the
command line ends. Whatever is not a `ReuseError` is a bug in reuselib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


class ReuseError(Exception):
    """Base of all errors meant for the user.

    Args:
        what: what happened, with the received value.
        expected: what would have been right.
        fix: what to do now.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, expected: str = "", fix: str = "") -> None:
        self.what = what
        self.expected = expected
        self.fix = fix
        super().__init__(what, expected, fix)

    def __reduce__(self) -> tuple[object, ...]:
        # how an error is rebuilt in another process; the constructors differ, so none is called
        return _rebuilt, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        lines = [self.what]
        if self.expected:
            lines.append(f"expected: {self.expected}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


def _rebuilt(
    kind: type[ReuseError], arguments: tuple[object, ...], state: dict[str, object]
) -> ReuseError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a recipe: where it is, and what would be right."""

    where: str
    """`file:line` when it came from a file, otherwise empty."""
    key: str
    """Path of the field, such as `steps[0].lora.r`."""
    message: str
    """What is wrong, why, and the nearest valid key if there is one."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class RecipeError(ReuseError):
    """A recipe cannot be understood. Carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataError(ReuseError):
    """Rows, columns, splits or labels are not what the task needs."""


class SourceError(ReuseError):
    """A model or data source cannot be found or resolved."""


class UnsafeModel(ReuseError):
    """Opening the model would execute code: a pickle, or remote code that was not asked for."""


class SelectorError(ReuseError):
    """A selector is malformed or matches nothing."""


class IncompatibleStep(ReuseError):
    """An adapter cannot be applied to this model, with the reason."""


class TrainingError(ReuseError):
    """Training cannot go on, for instance because the loss is not finite."""


class StoreError(ReuseError):
    """The store or the output folder cannot be read or written."""


class DoesNotFit(ReuseError):
    """A recipe needs more memory or room on the disk than there is, as estimated before it begins."""


class PeerFailed(ReuseError):
    """A run of several processes cannot go on, because another one of them failed.

    Args:
        what: what happened.
        code: with which exit code that one ends.
        told: whether it says itself what happened.
        expected: what would have been right.
        fix: what to do now.
    """

    def __init__(
        self, what: str, *, code: int = 3, told: bool = False, expected: str = "", fix: str = ""
    ) -> None:
        self.code = code
        self.told = told
        super().__init__(what, expected=expected, fix=fix)


class MissingExtra(ReuseError):
    """An optional package is needed; the message names the extra that brings it."""


class LawBroken(ReuseError):
    """An adapter breaks one of the laws that every adapter keeps."""

    def __init__(self, law: str, what: str, *, fix: str = "") -> None:
        self.law = law
        super().__init__(f"law '{law}' is broken: {what}", fix=fix)


class GateFailed(ReuseError):
    """The last child of a recipe misses what its gates ask for. The child is in the store.

    Args:
        what: each gate that failed, with figure, bound and measured value.
        verdicts: on every bound of every gate, see `measure.gates.Verdict`, as plain values.
        expected: what would have been right.
        fix: what to do now.
    """

    exit_code = 4

    def __init__(
        self,
        what: str,
        *,
        verdicts: Sequence[Mapping[str, object]] = (),
        expected: str = "",
        fix: str = "",
    ) -> None:
        self.verdicts = tuple(dict(each) for each in verdicts)
        super().__init__(what, expected=expected, fix=fix)


class IntegrityError(ReuseError):
    """Bytes do not match their record, or a record is malformed.

    Args:
        code: stable, machine-readable name, such as `DIGEST_MISMATCH`.
        what: what happened.
        path: file inside the model folder, relative and in POSIX form.
        tensor: name of the tensor, when the difference lies in one.
    """

    exit_code = 5

    def __init__(
        self, code: str, what: str, *, path: str = "", tensor: str = "", fix: str = ""
    ) -> None:
        self.code = code
        self.path = path
        self.tensor = tensor
        super().__init__(f"{code}: {what}", fix=fix)


class Interrupted(KeyboardInterrupt):
    """A training was told to end, by Ctrl-C or SIGTERM, and did so after a whole optimizer step.

    No `ReuseError`, because it is no failure: what catches failures must let it pass. The same call goes on where this
    one ended.

    Args:
        step: optimizer steps that are done.
        num_steps: that were planned.
        folder: the checkpoint that was written; None if none could be.
        why: the reason, if none could be.
    """

    def __init__(self, step: int, num_steps: int, folder: Path | None, why: str = "") -> None:
        self.step = step
        self.num_steps = num_steps
        self.folder = folder
        self.why = why
        kept = "which is kept" if folder is not None else f"which could not be kept: {why}"
        super().__init__(f"interrupted after step {step} of {num_steps}, {kept}")
