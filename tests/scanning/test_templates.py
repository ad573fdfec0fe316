from __future__ import annotations

import struct

import pytest

from reuselib.scanning.templates import escapes, templates_of, templates_of_gguf

HARMLESS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    "{%- set ns = namespace(found=false) %}{{ raise_exception('roles must alternate') }}{{ strftime_now('%d %b') }}"
    "{{ tools | tojson(indent=4) }}{{ message.tool_calls[0].function.name }}"
)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ x|attr('a') }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum['x'] }}",
        "{% import 'x' as y %}",
        "{%- include 'x' %}",
        "{{ x['__cl' ~ 'ass__'] }}",
        "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
        "{{ x['_' * 2 + 'class'] }}",
        "{{ self.x }}",
        "{{ eval('1') }}",
        "{{ f.gi_frame }}",
    ],
)
def test_what_leaves_the_sandbox_is_seen(template):
    assert escapes(template)
    assert escapes(HARMLESS + template)


def test_an_ordinary_template_is_not():
    assert escapes(HARMLESS) == ""


def test_templates_are_found_in_every_form():
    assert list(templates_of(["a", {"name": "n", "template": "b"}, 3])) == ["a", "b"]
    assert list(templates_of({"x": "a", "y": ["b"]})) == ["a", "b"]
    assert list(templates_of(None)) == []


def test_templates_of_gguf_are_found():
    def field(key: bytes, text: bytes) -> bytes:
        return (
            struct.pack("<Q", len(key))
            + key
            + struct.pack("<I", 8)
            + struct.pack("<Q", len(text))
            + text
        )

    start = (
        b"GGUF"
        + field(b"tokenizer.chat_template", b"{{ one }}")
        + field(b"tokenizer.chat_template.tool", b"two")
    )

    assert list(templates_of_gguf(start)) == ["{{ one }}", "two"]
