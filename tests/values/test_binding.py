"""The binder, with dataclasses of its own: one of each kind of type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from reuselib.errors import DataError, Problem, RecipeError
from reuselib.values.binding import FAILED, Binder, Family
from reuselib.values.document import parse


@dataclass(frozen=True)
class Inner:
    epochs: int = 3
    learning_rate: float = 5e-5
    mode: Literal["auto", "fp32"] = "auto"


class Pet:
    pass


@dataclass(frozen=True)
class Cat(Pet):
    lives: int = 9
    fit: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.lives < 1:
            raise ValueError(f"lives must be at least 1, got {self.lives}")
        if self.lives > 9:
            raise DataError("too many lives", expected="at most 9")
        if self.lives == 7:
            raise RecipeError([Problem("", "lives", "seven is taken")])


@dataclass(frozen=True)
class Dog(Pet):
    name: str


@dataclass(frozen=True)
class Everything:
    must: int
    number: float = 0.0
    flag: bool = False
    word: str | None = None
    words: tuple[str, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    either: int | tuple[int, ...] = 0
    table: Mapping[str, int] = field(default_factory=dict)
    inner: Inner | None = None
    pets: tuple[Pet, ...] = ()
    anything: Any = None


FAMILIES = {Pet: Family("pet", ("cat", "dog"), lambda kind: {"cat": Cat, "dog": Dog}[kind])}


def bind(text: str) -> Everything:
    binder = Binder(parse(text, "r.yaml"), FAMILIES)
    bound = binder.bind(Everything, binder.document.value, ())
    problems = [*binder.document.problems, *binder.problems]
    assert bound is not FAILED or problems
    if problems:
        raise RecipeError(problems)
    return bound


def problems(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        bind(text)
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


def test_every_kind_of_type_is_read():
    bound = bind(
        "{must: 1, number: 2, flag: true, word: w, words: [a, b], pair: [1, 2.5], either: [1, 2], table: {a: 1}, "
        "inner: {epochs: 1}, pets: [cat, {cat: }, {cat: {lives: 3}}, {dog: {name: rex}}], anything: [1, {a: b}]}"
    )

    assert bound == Everything(
        1, 2.0, True, "w", ("a", "b"), (1.0, 2.5), (1, 2), {"a": 1}, Inner(epochs=1),
        (Cat(), Cat(), Cat(3), Dog("rex")), [1, {"a": "b"}],
    )  # fmt: skip
    assert type(bound.number) is float


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "must: is missing; expected an integer"),
        ("{must: '8'}", "must: expected an integer; got '8'. Write `8`, without quotes"),
        ("{must: 2.0}", "must: expected an integer; got 2.0. Write `2`"),
        ("{must: 2.5}", "must: expected an integer; got 2.5"),
        ("{must: true}", "must: expected an integer; got `true`"),
        ("{must: }", "must: expected an integer; got nothing"),
        ("{must: 1, number: .inf}", "number: expected a number; got '.inf'"),
        ("{must: 1, number: '1e-4'}", "number: expected a number; got '1e-4'. Write `1e-4`, without quotes"),
        ("{must: 1, flag: no}", "flag: expected true or false; got 'no'. Write `false`, without quotes"),
        ("{must: 1, flag: 1}", "flag: expected true or false; got 1"),
        ("{must: 1, word: 3}", "word: expected a string; got 3. Write it in quotes"),
        ("{must: 1, words: a}", "words: expected a list (each a string); got 'a'. Write `[a]`"),
        ("{must: 1, words: [a, 2]}", "words[1]: expected a string; got 2. Write it in quotes"),
        ("{must: 1, pair: [1]}", "pair: expected a list of 2: a number, a number; got a list of 1"),
        ("{must: 1, either: x}", "either: expected an integer or a list (each an integer); got 'x'"),
        ("{must: 1, table: [1]}", "table: expected a mapping; got a list of 1"),
        ("{must: 1, inner: 3}", "inner: expected a mapping, such as `{epochs: 3}`; got 3"),
        ("{must: 1, inner: {mode: fp23}}", "inner.mode: expected `auto` or `fp32`; got 'fp23'. Did you mean `fp32`?"),
        ("{must: 1, inner: {epoch: 1}}", "inner.epoch: unknown key; did you mean `epochs`? There are: epochs, learning_rate, mode"),
        ("{must: 1, pets: [cta]}", "pets[0].cta: no pet is called 'cta'; did you mean 'cat'? There are: cat, dog"),
        ("{must: 1, pets: [3]}", "pets[0]: expected one pet, such as `{cat: {}}`; got 3"),
        ("{must: 1, pets: [dog]}", "pets[0].dog.name: is missing; expected a string"),
        ("{must: 1, pets: [{cat: , lives: 3}]}", "pets[0].lives: belongs to `cat`: indent it two spaces more than `cat`"),
        ("{must: 1, pets: [{cat: {epochs: 3}}]}", "pets[0].cat.epochs: unknown key here; use `fit.epochs`"),
        ("{must: 1, pets: [{cat: {lives: 0}}]}", "pets[0].cat: lives must be at least 1, got 0"),
        ("{must: 1, pets: [{cat: {lives: 10}}]}", "pets[0].cat: too many lives; expected: at most 9"),
        ("{must: 1, pets: [{cat: {lives: 7}}]}", "pets[0].cat.lives: seven is taken"),
        ("{must: 1, must: 2}", "must: `must` is given twice; the first is at r.yaml:1. Keep one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_what_would(text, expected):
    assert problems(text) == [expected]


def test_long_text_is_not_repeated():
    secret = "A1b2" * 30

    [told] = problems(f"{{must: 1, inner: {secret}}}")

    assert told.startswith("inner: expected a mapping, such as `{epochs: ...}`; got ")
    assert secret not in told


def test_all_problems_are_told_at_once():
    told = problems(
        "{must: x, flg: true, words: [1, 2], pets: [{cat: {lives: a, fit: {epochs: b}}}]}"
    )

    assert len(told) == 6
    assert told[1] == (
        "flg: unknown key; did you mean `flag`? There are: "
        "must, number, flag, word, words, pair, either, table, inner, pets, anything"
    )


def test_a_value_that_was_found_wanting_while_reading_is_told_once():
    assert problems(f"{{must: {2**60}}}") == [
        f"must: the integer {2**60} is beyond 2^53, where records lose digits"
    ]
