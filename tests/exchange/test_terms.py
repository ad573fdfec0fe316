from __future__ import annotations

import importlib.resources
import json

import pytest

from reuselib.exchange import terms


def test_every_identifier_is_on_the_list_of_spdx():
    """As CycloneDX's package carries it."""
    folder = importlib.resources.files("cyclonedx.schema") / "_res"
    known = json.loads((folder / "spdx.SNAPSHOT.schema.json").read_text(encoding="utf-8"))["enum"]

    assert set(terms.SPDX) <= set(known)
    assert len({name.lower() for name in terms.SPDX}) == len(terms.SPDX)


@pytest.mark.parametrize(
    ("recorded", "written"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("llama3.1", "LicenseRef-llama3.1"),
        ("my own / terms", "LicenseRef-my-own-terms"),
        ("mit AND gemma", "MIT AND LicenseRef-gemma"),
        ("MIT OR Apache-2.0", "LicenseRef-MIT-OR-Apache-2.0"),
    ],
)
def test_a_licence_becomes_an_expression(recorded, written):
    assert terms.expression(recorded) == written


def test_a_name_that_only_looks_alike_is_no_identifier():
    assert terms.identifier("apache") is None
    assert terms.identifier("Apache-2.0 ") is None
