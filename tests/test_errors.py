from __future__ import annotations

import pickle

import pytest

from reuselib import errors
from reuselib.errors import IntegrityError, LawBroken, Problem, RecipeError, ReuseError, SourceError


def test_an_error_says_what_happened_what_was_expected_and_what_to_do():
    error = SourceError("no folder ./x", expected="a folder", fix="correct the path")

    assert str(error) == "no folder ./x\nexpected: a folder\nfix: correct the path"
    assert (error.what, error.expected, error.fix) == (
        "no folder ./x",
        "a folder",
        "correct the path",
    )


def test_what_was_not_given_leaves_no_empty_line():
    assert str(ReuseError("what")) == "what"
    assert str(ReuseError("what", fix="this")) == "what\nfix: this"


def test_a_recipe_error_carries_every_problem():
    problems = [
        Problem("a.yaml:3", "steps[0].lora.r", "too small"),
        Problem("", "seed", "no number"),
    ]

    error = RecipeError(problems)

    assert error.problems == tuple(problems)
    assert str(error) == "a.yaml:3: steps[0].lora.r: too small\nseed: no number"


def test_an_integrity_error_names_code_file_and_tensor():
    error = IntegrityError(
        "DIGEST_MISMATCH", "it changed", path="model.safetensors", tensor="a.b", fix="again"
    )

    assert (error.code, error.path, error.tensor) == ("DIGEST_MISMATCH", "model.safetensors", "a.b")
    assert str(error) == "DIGEST_MISMATCH: it changed\nfix: again"


def test_a_broken_law_is_named():
    error = LawBroken("rebuild", "other outputs", fix="save them")

    assert error.law == "rebuild"
    assert str(error) == "law 'rebuild' is broken: other outputs\nfix: save them"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("RecipeError", 2),
        ("IntegrityError", 5),
        ("GateFailed", 4),
        ("DataError", 3),
        ("SourceError", 3),
        ("UnsafeModel", 3),
        ("SelectorError", 3),
        ("IncompatibleStep", 3),
        ("TrainingError", 3),
        ("StoreError", 3),
        ("MissingExtra", 3),
        ("LawBroken", 3),
        ("DoesNotFit", 3),
        ("PeerFailed", 3),
    ],
)
def test_every_kind_is_ours_and_knows_its_exit_code(name, code):
    kind = getattr(errors, name)

    assert issubclass(kind, ReuseError)
    assert kind.exit_code == code


def test_no_kind_of_error_is_left_out_above():
    kinds = {
        each.__name__ for each in ReuseError.__subclasses__() if each.__module__ == errors.__name__
    }

    [mark] = [
        each
        for each in test_every_kind_is_ours_and_knows_its_exit_code.pytestmark
        if each.name == "parametrize"
    ]
    assert kinds == {name for name, _ in mark.args[1]}


@pytest.mark.parametrize(
    "error",
    [
        SourceError("what", expected="this", fix="that"),
        IntegrityError("BAD_JSON", "what", path="a.json", tensor="t", fix="that"),
        RecipeError([Problem("a.yaml:3", "seed", "no number")]),
        LawBroken("rebuild", "what"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_through_to_another_process(error):
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_failed_gate_carries_the_verdicts():
    error = errors.GateFailed("gate failed: f1 is 0.1", verdicts=[{"figure": "f1"}], fix="more")

    again = pickle.loads(pickle.dumps(error))

    assert (error.exit_code, again.verdicts, str(again)) == (
        4,
        ({"figure": "f1"},),
        "gate failed: f1 is 0.1\nfix: more",
    )
