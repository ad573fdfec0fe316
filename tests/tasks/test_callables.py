from __future__ import annotations

from functools import partial

from torch import nn

from reuselib.tasks.callables import code_digest, qualified_name


def scaled(factor: float):
    def scale(x):
        return x * factor

    return scale


def test_names_are_those_of_the_definition():
    assert qualified_name(nn.Linear) == "torch.nn.modules.linear.Linear"
    assert qualified_name(nn.MSELoss()) == "torch.nn.modules.loss.MSELoss"
    assert qualified_name(partial(scaled, 1.0)).endswith(".scaled")


def test_the_digest_is_that_of_code_and_values():
    assert code_digest(scaled(1.0)) == code_digest(scaled(1.0))
    assert code_digest(scaled(1.0)) != code_digest(scaled(2.0))
    assert code_digest(partial(scaled, 1.0)) != code_digest(partial(scaled, 2.0))
    assert code_digest(nn.CrossEntropyLoss()) == code_digest(nn.CrossEntropyLoss())
    assert code_digest(nn.CrossEntropyLoss()) != code_digest(nn.CrossEntropyLoss(reduction="sum"))


def test_code_without_a_file_is_told_apart():
    spaces: list[dict] = [{}, {}]
    for space, body in zip(spaces, ("x + 1", "x + 2"), strict=True):
        exec(f"def f(x): return {body}", space)

    assert code_digest(spaces[0]["f"]) != code_digest(spaces[1]["f"])


def test_built_in_functions_have_a_digest():
    assert code_digest(len) != code_digest(max)
