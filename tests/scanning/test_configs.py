from __future__ import annotations

import json

import pytest

from reuselib.scanning.configs import search


def codes(value, path="config.json") -> set[str]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return {hazard.code for hazard in search(data, path)}


def deep(value, levels=40):
    for number in range(levels):
        value = {"inner": value} if number % 2 else [value]
    return value


HARMFUL = [
    ({"auto_map": {"AutoModel": "modeling.Model"}}, "REMOTE_CODE"),
    ({"auto_map": {"AutoModel": "org/name--modeling.Model"}}, "REMOTE_CODE"),
    ({"anything": "org/name--modeling.Model"}, "REMOTE_CODE"),
    ({"trust_remote_code": True}, "REMOTE_CODE"),
    ({"trust_remote_code": "yes"}, "REMOTE_CODE"),
    ({"attn_implementation": "org/kernels"}, "REMOTE_CODE"),
    ({"_attn_implementation_internal": "org/kernels"}, "REMOTE_CODE"),
    ({"experts_implementation": {"a": "org/kernels@main"}}, "REMOTE_CODE"),
    ({"custom_pipelines": {"x": {"impl": "p.P"}}}, "REMOTE_CODE"),
    ({"_target_": "os.system"}, "REMOTE_CODE"),
    ({"layers": [{"class_name": "Lambda"}]}, "REMOTE_CODE"),
    ({"type": "evil.module.Layer"}, "CLASS_PATH"),
    ({"base_model_name_or_path": "org/base"}, "FOREIGN_REPO"),
    ({"_name_or_path": "org/base"}, "FOREIGN_REPO"),
    ({"_name_or_path": "/home/somebody/model"}, "LOCAL_PATH"),
    ({"chat_template": "{{ ''.__class__.__mro__ }}"}, "TEMPLATE_CODE"),
    ({"chat_template": [{"name": "x", "template": "{{ x | attr('a') }}"}]}, "TEMPLATE_CODE"),
    ({"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}, "CHAT_TEMPLATE"),
]


@pytest.mark.parametrize(("value", "code"), HARMFUL)
def test_each_is_found_at_any_depth(value, code):
    assert codes(value) == {code}
    assert codes(deep(value)) == {code}


@pytest.mark.parametrize(
    "value",
    [
        {"architectures": ["BertModel"], "hidden_act": "gelu", "torch_dtype": "float32"},
        {"auto_map": {}, "trust_remote_code": False, "attn_implementation": None},
        {"attn_implementation": "sdpa", "_attn_implementation_autoset": True},
        {"type": "sentence_transformers.models.Transformer"},
        {"_name_or_path": "", "name_or_path": "model"},
        {"media": "text/plain", "date": "1/2"},
    ],
)
def test_what_is_usual_is_not(value):
    assert codes(value) == set()


@pytest.mark.parametrize(
    "data",
    [
        b'{"auto_map": null, "auto_map": {"AutoModel": "a.B"}}',
        b'{"trust_remote_code": false, "trust_remote_code": true}',
        b'{"x": NaN, "trust_remote_code": true}',
        b"[" * 10_000 + b'{"trust_remote_code": true}' + b"]" * 10_000,
    ],
)
def test_json_that_readers_understand_differently_is_suspected(data):
    assert codes(data) == {"AMBIGUOUS_JSON", "REMOTE_CODE"}


@pytest.mark.parametrize("target", ["../other.safetensors", "/etc/passwd", "a\\b", "C:x"])
def test_an_index_that_leaves_the_folder_is_found(target):
    value = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": target}}

    assert codes(value, "model.safetensors.index.json") == {"UNSAFE_TARGET"}


def test_messages_cannot_write_on_a_terminal():
    [hazard] = search(json.dumps({"auto_map": {"a\x1b[31m": "b\nc"}}).encode(), "config.json")

    assert hazard.message.isprintable()
