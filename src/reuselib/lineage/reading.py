"""Reading JSON objects of a known form: every field is asked for by name and type, and none may be left over."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from reuselib.errors import IntegrityError

if TYPE_CHECKING:
    from reuselib.adapter import Json

T = TypeVar("T")


class Fields:
    """One JSON object, and where it stands in its file.

    Args:
        value: what was found there.
        where: place within the file, such as `predicate.runDetails`.
        known: the fields that may occur.
        path: name of the file, for errors.

    Raises:
        IntegrityError: `BAD_MANIFEST` if it is no object, `UNKNOWN_FIELD` if it has another field.
    """

    def __init__(self, value: Json, where: str, known: Iterable[str], path: str) -> None:
        """Refuse what is no object of these fields."""
        self.where = where
        self.path = path
        if not isinstance(value, dict):
            raise self.refuse(f"expected an object, got {_kind(value)}")
        self.value = value
        known = tuple(known)
        for name in value:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
                raise IntegrityError(
                    "UNKNOWN_FIELD",
                    f"{path}: {self._place(name)} has no meaning here{hint}",
                    path=path,
                )

    def get(self, name: str, kind: type[T]) -> T:
        """The value of a field that must be there."""
        if name not in self.value:
            raise self.refuse(f"{name!r} is missing")
        return self._typed(name, kind)

    def find(self, name: str, kind: type[T], default: T) -> T:
        """The value of a field, or the default if the field is not there."""
        return self._typed(name, kind) if name in self.value else default

    def optional(self, name: str, kind: type[T]) -> T | None:
        """The value of a field, or None if the field is not there."""
        return self._typed(name, kind) if name in self.value else None

    def json(self, name: str) -> Json:
        """The value of a field that must be there, of whatever kind."""
        self.get(name, object)
        return self.value[name]

    def texts(self, name: str) -> dict[str, str]:
        """A mapping of text to text, empty if the field is not there."""
        mapping = self.find(name, dict, {})
        if not all(isinstance(item, str) for item in mapping.values()):
            raise self.refuse(f"{name!r} must map to text only")
        return mapping

    def object(self, name: str, known: Iterable[str]) -> Fields:
        """A nested object that must be there."""
        return Fields(self.get(name, dict), self._place(name), known, self.path)

    def objects(self, name: str, known: Iterable[str]) -> list[Fields]:
        """A list of objects, empty if the field is not there."""
        items = self.find(name, list, [])
        return [
            Fields(item, f"{self._place(name)}[{index}]", known, self.path)
            for index, item in enumerate(items)
        ]

    def refuse(self, why: str, code: str = "BAD_MANIFEST") -> IntegrityError:
        """The error that this object is not as it should be."""
        place = f" {self.where}:" if self.where else ""
        return IntegrityError(code, f"{self.path or 'manifest'}:{place} {why}", path=self.path)

    def _typed(self, name: str, kind: type[T]) -> T:
        value = self.value[name]
        # True is an instance of int, but not a count.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            raise self.refuse(f"{name!r} must be {kind.__name__}, got {_kind(value)}")
        return value

    def _place(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        # its text may be as long as the file
        return f"{type(value).__name__} of {len(value)} items"
    return f"{type(value).__name__} {str(value)[:60]!r}"
