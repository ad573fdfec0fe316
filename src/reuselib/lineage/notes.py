"""What a verification notes on its way: a step that fails is a problem, and the steps that do not need it go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from reuselib.errors import IntegrityError, ReuseError
from reuselib.lineage.policy import Policy
from reuselib.lineage.report import Problem

T = TypeVar("T")


@dataclass
class Notes:
    """Problems, and what was and was not checked, in the order in which they come up."""

    policy: Policy | None = None
    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def attempt(self, step: Callable[[], T]) -> T | None:
        """The result of a step, or None if it cannot be done; why is noted."""
        try:
            return step()
        except ReuseError as error:
            self.note(error)
            return None

    def note(self, *errors: ReuseError) -> None:
        """Note problems; one that several steps met is noted once."""
        for error in errors:
            problem = Problem.of(error)
            if problem not in self.problems:
                self.problems.append(problem)

    def refuse_unrecorded(self, error: IntegrityError) -> None:
        """Note a problem; one about a file that nobody recorded, as the policy has it."""
        lenient = self.policy is not None and self.policy.unrecorded == "warn"
        if lenient and error.code == "UNSIGNED_FILE":
            self.warnings.append(Problem.of(error))
        else:
            self.note(error)
