from __future__ import annotations

import json

import pytest

from reuselib.errors import IntegrityError
from reuselib.lineage.headers import headers

INDEX = "model.safetensors.index.json"


def test_sound_index_is_accepted(base):
    places = {"bias": "model.safetensors", "layer.weight": "model.safetensors"}
    (base / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))

    assert set(headers(base)) == set(places)


@pytest.mark.parametrize(
    ("places", "code"),
    [
        ({"bias": "../other/model.safetensors"}, "UNSAFE_PATH"),
        ({"bias": "/etc/passwd"}, "UNSAFE_PATH"),
        ({"bias": "..\\model.safetensors"}, "UNSAFE_PATH"),
        ({"bias": "pytorch_model.bin"}, "UNSAFE_PATH"),
        ({"bias": "model-00002-of-00002.safetensors"}, "TRUNCATED"),
        ({"weight": "model.safetensors"}, "TRUNCATED"),
        ({"bias": 1}, "BAD_JSON"),
        ([], "BAD_JSON"),
    ],
)
def test_index_that_promises_what_is_not_there_is_refused(base, places, code):
    (base / INDEX).write_text(json.dumps({"weight_map": places}))

    with pytest.raises(IntegrityError) as caught:
        headers(base)

    assert (caught.value.code, caught.value.path) == (code, INDEX)
