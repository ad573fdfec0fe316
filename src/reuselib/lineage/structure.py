"""Reading what an adapter recorded of its work: `internalParameters.structure`, which may come from a stranger.

Every value is asked for by name and kind. What is missing, left over or of another kind is `BAD_STRUCTURE`, so no
adapter finds out halfway through a proof, or while it rebuilds a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from reuselib.errors import IntegrityError

if TYPE_CHECKING:
    from reuselib.adapter import Json

T = TypeVar("T")


@dataclass(frozen=True)
class Structure:
    """One object of a structure."""

    values: Mapping[str, Json]
    where: str = "structure"

    @classmethod
    def read(
        cls,
        value: Json,
        needed: Iterable[str],
        *,
        optional: Iterable[str] = (),
        where: str = "structure",
    ) -> Structure:
        """The object with these keys and no other.

        Raises:
            IntegrityError: `BAD_STRUCTURE`, it is no such object.
        """
        if not isinstance(value, dict):
            raise malformed(f"{where} must be an object, got {_kind(value)}")
        needed = tuple(needed)
        if lacking := [key for key in needed if key not in value]:
            raise malformed(f"{where}.{lacking[0]} is missing")
        if odd := sorted(set(value) - {*needed, *optional}):
            raise malformed(f"{where}.{odd[0]} has no meaning here")
        return cls(value, where)

    def names(self, key: str) -> tuple[str, ...]:
        """Different names; none if an optional key is not there."""
        names = self._list(key)
        if not all(isinstance(each, str) for each in names):
            raise malformed(f"{self.where}.{key} must list names")
        if len(set(map(str, names))) < len(names):
            raise malformed(f"{self.where}.{key} lists a name twice")
        return tuple(map(str, names))

    def groups(self, key: str) -> tuple[tuple[str, ...], ...]:
        """Lists of names, none of them empty."""
        found = [
            Structure({str(at): each}, f"{self.where}.{key}").names(str(at))
            for at, each in enumerate(self._list(key))
        ]
        if not all(found):
            raise malformed(f"{self.where}.{key} holds an empty group")
        return tuple(found)

    def counts(self, key: str) -> dict[str, int]:
        """Whole numbers from 0 up, by name."""
        return self._mapping(key, is_count, "whole numbers from 0 up")

    def numbers(self, key: str) -> dict[str, float]:
        """Numbers, by name."""
        return self._mapping(key, is_number, "numbers")

    def texts(self, key: str) -> dict[str, str]:
        """Text, by name."""
        return self._mapping(key, is_text, "text")

    def indices(self, key: str) -> dict[str, tuple[int, ...]]:
        """Ascending whole numbers from 0 up, at least one, by name."""
        found = self._mapping(key, is_ascending, "ascending indices")
        return {name: tuple(each) for name, each in found.items()}

    def number(self, key: str) -> float:
        """One number."""
        return float(self._one(key, is_number, "a number"))

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._one(key, is_flag, "true or false")

    def text(self, key: str) -> str:
        """One text."""
        return self._one(key, is_text, "text")

    def mapping(self, key: str) -> dict[str, Json]:
        """Anything, by name."""
        return self._one(key, is_mapping, "an object")

    def items(self, key: str) -> list[Json]:
        """A list of anything; empty if an optional key is not there."""
        return self._list(key)

    def _list(self, key: str) -> list[Json]:
        if key not in self.values:
            return []
        return self._one(key, is_list, "a list")

    def _mapping(self, key: str, fits: Callable[[object], TypeGuard[T]], what: str) -> dict[str, T]:
        if key not in self.values:
            return {}
        found: dict[str, T] = {}
        for name, each in self.mapping(key).items():
            if not fits(each):
                raise malformed(f"{self.where}.{key}.{name} must be {what}, got {_kind(each)}")
            found[name] = each
        return found

    def _one(self, key: str, fits: Callable[[object], TypeGuard[T]], what: str) -> T:
        value: object = self.values[key]
        if not fits(value):
            raise malformed(f"{self.where}.{key} must be {what}, got {_kind(value)}")
        return value


def malformed(why: str, tensor: str = "") -> IntegrityError:
    """The error that a recorded structure is none."""
    return IntegrityError(
        "BAD_STRUCTURE",
        f"what the manifest records of the step cannot be: {why}",
        tensor=tensor,
        fix="get the model again; its manifest was changed or written by another program",
    )


def is_count(value: object) -> TypeGuard[int]:
    """Whether it is a whole number from 0 up; `true` is none."""
    return type(value) is int and value >= 0


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number; `true` is none."""
    return type(value) in (int, float) and abs(value) < float("inf")  # type: ignore[arg-type,operator]


def is_flag(value: object) -> TypeGuard[bool]:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is text."""
    return isinstance(value, str)


def is_list(value: object) -> TypeGuard[list[Json]]:
    """Whether it is a list."""
    return isinstance(value, list)


def is_mapping(value: object) -> TypeGuard[dict[str, Json]]:
    """Whether it is an object."""
    return isinstance(value, dict)


def is_ascending(value: object) -> TypeGuard[list[int]]:
    """Whether it lists different whole numbers from 0 up in their order, at least one."""
    if not is_list(value) or not value or not all(is_count(each) for each in value):
        return False
    numbers = [each for each in value if is_count(each)]
    return all(one < other for one, other in pairwise(numbers))


def _kind(value: object) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
